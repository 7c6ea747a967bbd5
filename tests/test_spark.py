"""The scripts of "On Spark" do what the page says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasext.models  # noqa: F401 - so that Keras can load the model
from kerasext.storage import PredictionFile

pytest.importorskip("pyspark")
pandas = pytest.importorskip("pandas")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("java") or os.environ.get("JAVA_HOME")), reason="no Java is installed"
    ),
]

TEXT = (Path(__file__).parent.parent / "docs/spark.md").read_text()
PREPARE, TO_PARQUET, TO_HDF5, READ = re.findall(r"^```python\n(.+?)```", TEXT, re.DOTALL | re.M)
# What PySpark says of itself, and, as elsewhere in these tests, what Keras does.
WARNINGS = (
    "error,ignore:PySpark does not yet fully support pandas:FutureWarning,"
    "ignore:__array__ implementation:DeprecationWarning"
)
# Two tasks at a time, which may fail once; more partitions than row groups, so that some are empty;
# more than one Arrow batch in each.
ROW_GROUPS = 2
CONFIGURATION = """
spark.master local[2,2]
spark.ui.enabled false
spark.driver.bindAddress 127.0.0.1
spark.driver.host 127.0.0.1
spark.sql.files.maxPartitionBytes 15000
spark.sql.execution.arrow.maxRecordsPerBatch 400
"""
# The first attempts of all tasks end in the second batch: of the first rows by an error, of others
# by a kill; and both with a copy that was begun.
FAILING = """
def failing(batches, name):
    import os, signal

    for number, batch in enumerate(batches):
        if number == 1 and TaskContext.get().attemptNumber() == 0:
            (JOB / name).write_bytes(b"half a file")
            if batch["id"][0].as_py() < 900:
                raise OSError("a disk that breaks")
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
"""
LOOP = "for batch in batches:"
COPY = "shutil.copyfile(shard, JOB / name)"
COPY_OF_ANOTHER = 'shutil.copyfile(shard, JOB / f".part-99999{name}")'


def run(script, folder):
    """Runs a script in a folder, as `spark-submit` would; a warning ends it, and a task."""
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONWARNINGS": WARNINGS,
        "SPARK_CONF_DIR": str(folder / "conf"),
    }
    (folder / "script.py").write_text(script)
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-8000:]
    return ended


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the model and the rows of the page."""
    folder = tmp_path_factory.mktemp("spark")
    (folder / "conf").mkdir()
    (folder / "conf/spark-defaults.conf").write_text(CONFIGURATION)
    run(PREPARE, folder)
    return folder


@pytest.fixture(scope="module")
def expected(prepared):
    """What one machine predicts, in the order of the ids."""
    rows = pandas.read_parquet(prepared / "digits.parquet").sort_values("id")
    model = keras.saving.load_model(prepared / "digits.keras")
    outputs = model.predict(np.stack(rows["image"]), batch_size=256, verbose=0)
    return {**outputs, "ids": rows["id"].to_numpy(), "targets": rows["digit"].to_numpy()}


def check_same(found, expected):
    """Every row once, with the values that one machine predicts."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


def check_job(folder, expected):
    """The files of a job are its shards and their index, which has every row once."""
    index, *shards = sorted(os.listdir(folder))
    assert index == "index.h5"
    partitions = [int(re.fullmatch(r"part-(\d{5})-\d+[.]h5", name)[1]) for name in shards]
    assert len(set(partitions)) == len(partitions) == ROW_GROUPS
    assert max(partitions) >= ROW_GROUPS, "no partition was empty"
    with PredictionFile(folder / index) as predictions:
        predictions.verify()
        assert predictions.class_names == list("0123456789")
        check_same({name: predictions[name][:] for name in predictions}, expected)


def test_parquet(prepared, expected):
    """The UDF writes what `predict` returns, ids and other columns beside it."""
    run(TO_PARQUET, prepared)
    rows = pandas.read_parquet(prepared / "predictions.parquet").sort_values("id")
    assert list(rows) == ["id", "digit", "probabilities", "labels", "confidence"]
    found = {name: rows[name].to_numpy() for name in ("labels", "confidence")}
    found["probabilities"] = np.stack(rows["probabilities"])
    columns = {"ids": rows["id"].to_numpy(), "targets": rows["digit"].to_numpy()}
    check_same({**found, **columns}, expected)


def test_hdf5(prepared, expected):
    """Each partition with rows writes a file, and the index has every row once."""
    run(TO_HDF5, prepared)
    check_job(prepared / "job", expected)
    accuracy = np.mean(expected["labels"] == expected["targets"])
    assert f"{accuracy}" in run(READ, prepared).stdout


def test_attempts_that_fail(prepared, expected, tmp_path):
    """Nothing is left of attempts that failed, were killed, or came second; each row is once."""
    folder = tmp_path / "again"
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("job", "predictions.parquet"))
    assert TO_HDF5.count(LOOP) == TO_HDF5.count(COPY) == 1
    script = TO_HDF5.replace(LOOP, "for batch in failing(batches, name):")
    script = script.replace(COPY, f"{COPY}; {COPY_OF_ANOTHER}")
    said = run(script.replace("\n\ndef ", f"\n{FAILING}\n\ndef ", 1), folder).stderr
    assert "a disk that breaks" in said
    assert "Python worker exited unexpectedly" in said
    check_job(folder / "job", expected)
