"""Whole jobs on a Ray that the tests start, and what happens to them."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from five_heads import TASKS, five_heads, rows_and_targets

from kerasext import PredictionFile
from kerasext.evaluation import evaluate
from kerasext.ray import HDF5Datasink, KerasPredictor
from kerasext.storage import PredictionFileWriter

pytestmark = pytest.mark.slow

ROWS = 4000
FILES = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray of four CPUs, which is stopped at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init("local", num_cpus=4, **options)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


@pytest.fixture
def data():
    """The rows of the jobs, float32."""
    return np.random.default_rng(0).normal(size=(ROWS, 8)).astype("float32")


@pytest.fixture
def source(tmp_path, data):
    """A folder of Parquet files with ids in no order; row `n` has the id `2 * n`."""
    folder = tmp_path / "source"
    folder.mkdir()
    order = np.random.default_rng(1).permutation(ROWS)
    for number, part in enumerate(np.array_split(order, FILES)):
        table = pa.table({"id": 2 * part, "x": list(data[part]), "label": part % 3})
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


def check(folder, data, model):
    """Each row is there once, with what a single `predict` gives, and no file is left over."""
    expected = model.predict(data, batch_size=500, verbose=0)
    with PredictionFile(folder / "index.h5") as file:
        file.verify()
        np.testing.assert_array_equal(file["ids"][:], 2 * np.arange(ROWS))
        np.testing.assert_array_equal(file["targets"][:], np.arange(ROWS) % 3)
        for name, values in expected.items():
            np.testing.assert_allclose(file[name][:], values, rtol=1e-5, err_msg=name)
        rows = file.rows
    shards = [path for path in folder.iterdir() if path.name != "index.h5"]
    for path in shards:
        with PredictionFile(path) as file:
            rows -= file.rows
    assert rows == 0


def run(source, folder, predictor, sink=HDF5Datasink, **options):
    """The job: Parquet in, prediction files out."""
    # Ray reads small files into one block.
    rows = ray.data.read_parquet(str(source)).repartition(FILES)
    dataset = rows.map_batches(
        predictor,
        fn_constructor_args=(options.pop("model"),),
        fn_constructor_kwargs={"keep_columns": ["id", "label"]},
        batch_size=128,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    dataset.write_datasink(sink(str(folder), targets="label", **options))


def test_an_actor_and_a_writer_are_killed(cluster, source, tmp_path, data, classifier, model_path):
    """Kills, of an actor and of a task half-way through its file, cost no row and double none."""
    killed = tmp_path / "killed"
    torn = tmp_path / "torn"

    class Killed(KerasPredictor):
        def __call__(self, batch):
            table = super().__call__(batch)
            if 2 * 1234 in batch["id"] and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return table

    class TornDatasink(HDF5Datasink):
        def write_block_to_file(self, block, file):
            def die(writer):
                writer.commit()
                torn.touch()
                os.kill(os.getpid(), signal.SIGKILL)

            if not torn.exists():
                PredictionFileWriter.finish = die
            super().write_block_to_file(block, file)

    run(source, tmp_path / "out", Killed, TornDatasink, model=model_path, min_rows_per_file=1000)
    assert killed.exists()
    assert torn.exists()
    check(tmp_path / "out", data, classifier)
    assert len(os.listdir(tmp_path / "out")) <= ROWS // 1000 + 1


def test_an_error_in_the_model(cluster, source, tmp_path, model_path):
    """A job that fails leaves no index, nor that of a job before it."""
    (tmp_path / "out").mkdir()

    class Fails(KerasPredictor):
        def __call__(self, batch):
            if 2 * 1234 in batch["id"]:
                raise ArithmeticError("one bad row")
            return super().__call__(batch)

    with pytest.raises(ray.exceptions.RayTaskError, match="one bad row"):
        run(source, tmp_path / "out", Fails, model=model_path)
    assert not (tmp_path / "out/index.h5").exists()


def run_script(script, *arguments):
    """Runs a script in a process of its own, with a Ray of its own."""
    environment = {**os.environ, "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


RESUMED = """
    import os, signal, sys, threading, time
    from pathlib import Path
    import ray
    from ray.data.checkpoint import CheckpointConfig
    from kerasext.ray import HDF5Datasink, KerasPredictor

    source, model, out, checkpoints, kill = sys.argv[1:]

    # Of 8 blocks of 4 batches each the actor predicts 5; the kill comes when these are written.
    def die():
        while {len([*Path(at).rglob("*.h5")]) + len([*Path(at).rglob("*.parquet")])
               for at in (out, checkpoints)} != {5}:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    class Stops(KerasPredictor):
        calls = 0

        def __call__(self, batch):
            self.calls += 1
            while kill == "kill" and self.calls > 20:
                time.sleep(1)
            return super().__call__(batch)

    ray.init("local", num_cpus=4, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=checkpoints)
    if kill == "kill":
        threading.Thread(target=die, daemon=True).start()
    ray.data.read_parquet(source).repartition(8).map_batches(
        Stops,
        fn_constructor_args=(model,),
        fn_constructor_kwargs={"keep_columns": ["id", "label"]},
        batch_size=128,
        compute=ray.data.ActorPoolStrategy(size=1),
    ).write_datasink(HDF5Datasink(out, targets="label"))
"""


def test_the_driver_is_killed(source, tmp_path, data, classifier, model_path):
    """Run again with Ray's checkpoints, a job whose driver was killed goes on: each row once."""
    out, checkpoints = tmp_path / "out", tmp_path / "checkpoints"
    ended = run_script(RESUMED, source, model_path, out, checkpoints, "kill")
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-3000:]
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5")}
    assert "index.h5" not in written
    ended = run_script(RESUMED, source, model_path, out, checkpoints, "")
    assert ended.returncode == 0, ended.stderr[-3000:]
    check(out, data, classifier)
    stayed = [name for name in written if (out / name).exists()]
    assert stayed
    assert all((out / name).stat().st_mtime_ns == written[name] for name in stayed)


NODE_REMOVED = """
    import sys, threading, time
    from pathlib import Path
    import ray
    from ray.cluster_utils import Cluster
    from kerasext.ray import HDF5Datasink, KerasPredictor

    source, model, out, removed = sys.argv[1:]

    class Waits(KerasPredictor):
        calls = 0

        def __call__(self, batch):
            self.calls += 1
            while self.calls > 8 and not Path(removed).exists():
                time.sleep(0.01)
            return super().__call__(batch)

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    ray.init(address=cluster.address)
    error = []

    def job():
        try:
            ray.data.read_parquet(source).repartition(8).map_batches(
                Waits,
                fn_constructor_args=(model,),
                fn_constructor_kwargs={"keep_columns": ["id", "label"]},
                batch_size=128,
                compute=ray.data.ActorPoolStrategy(size=2),
            ).write_datasink(HDF5Datasink(out, targets="label"))
        except BaseException as e:
            error.append(e)

    try:
        thread = threading.Thread(target=job)
        thread.start()
        while not list(Path(out).glob("*.h5")) and thread.is_alive():
            time.sleep(0.01)
        assert thread.is_alive(), error
        cluster.remove_node(nodes[0], allow_graceful=False)
        Path(removed).touch()
        cluster.add_node(num_cpus=2)
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    if error:
        raise error[0]
"""


def test_a_node_is_removed(source, tmp_path, data, classifier, model_path):
    """The loss of a node in the middle of a job costs no row and doubles none."""
    ended = run_script(NODE_REMOVED, source, model_path, tmp_path / "out", tmp_path / "removed")
    assert ended.returncode == 0, ended.stderr[-3000:]
    check(tmp_path / "out", data, classifier)
    assert Path(tmp_path / "out/index.h5").exists()


def test_five_heads(cluster, tmp_path):
    """Heads of all tasks, calibrated, and their targets go through a job by their names."""
    model = five_heads()
    x, targets = rows_and_targets(600, seed=1)
    for head in ("kind", "sick", "signs"):
        model.calibrate(x[:300], targets[head][:300], head=head)
        model.conformalize(x[300:], targets[head][300:], head=head)
    model.save(tmp_path / "five.keras")
    x, targets = rows_and_targets(200)
    columns = {f"targets/{name}": values for name, values in targets.items()}
    dataset = ray.data.from_items(
        [
            {"id": row, "x": x[row], **{name: values[row] for name, values in columns.items()}}
            for row in range(200)
        ]
    ).repartition(3)
    dataset.map_batches(
        KerasPredictor,
        fn_constructor_args=(str(tmp_path / "five.keras"),),
        fn_constructor_kwargs={"keep_columns": ["id", *columns]},
        batch_size=50,
        compute=ray.data.ActorPoolStrategy(size=1),
    ).write_datasink(HDF5Datasink(str(tmp_path / "out")))
    index = tmp_path / "out" / "index.h5"
    expected = model.predict(x, verbose=0)
    with PredictionFile(index) as file:
        assert sorted(file.heads) == ["age", "embedding", "kind", "sick", "signs"]
        for name in TASKS:
            for output, values in expected[name].items():
                found = file.head(name).get(output)[:]
                np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(file.head(name).targets[:], targets[name])
    for name in ("kind", "sick", "signs"):
        result = evaluate(index, head=name)
        assert result.negative_log_likelihood < result.uncalibrated.negative_log_likelihood
        assert 0.8 < result.prediction_sets.coverage < 1
    assert evaluate(index, head="age").root_mean_squared_error == pytest.approx(0.1, abs=0.03)
