"""What writing and predicting costs on Ray Data, and what an index over many files costs.

    pip install '.[ray]'
    python benchmarks/ray_jobs.py

A local Ray, whose start is not timed. The last figures are those that a job of 10**9 rows is
projected from: an index over 400 files, of 10,000,000 rows.
"""

import functools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ray
from measure import Figure, alternate, amount, in_own_process, machine, peak_growth, ratio, show
from ray.data.block import BlockAccessor

from kerasext import PredictionFile
from kerasext.ray import HDF5Datasink, KerasPredictor
from kerasext.shards import index_shards
from kerasext.storage import PredictionFileWriter

RUNS = amount(9, smallest=1)
CLASSES = 512
WRITTEN_ROWS = amount(200_000, smallest=1600)  # 410 MB in float32
BLOCK_ROWS = amount(262_144, smallest=1024)  # a block of 512 MiB
PREDICTED_ROWS = amount(1_000_000, smallest=20_000)
ACTORS = amount(2, smallest=1)
INDEX_FILES, INDEX_ROWS = amount(400, smallest=4), amount(25_000, smallest=100)


def probabilities(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a model of many classes would yield."""
    random = np.random.default_rng(int(batch["id"][0]))
    return {**batch, "probabilities": random.random((len(batch["id"]), CLASSES), dtype="float32")}


def features(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Small rows, made where they are needed."""
    random = np.random.default_rng(int(batch["id"][0]))
    return {**batch, "x": random.random((len(batch["id"]), 16), dtype="float32")}


def clean(folder: Path) -> None:
    """Removes what a run has written, and waits until the disk has nothing left to do."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def writing(folder: Path) -> Iterator[Figure]:
    """Rate of the sink, against Ray's own one for Parquet, on blocks that are in memory."""
    rows = ray.data.range(WRITTEN_ROWS, override_num_blocks=16)
    blocks = rows.map_batches(probabilities, batch_size=None).materialize()
    seconds = alternate(
        RUNS,
        functools.partial(clean, folder),
        hdf5=lambda: blocks.write_datasink(HDF5Datasink(str(folder))),
        files=lambda: blocks.write_datasink(HDF5Datasink(str(folder), index=None)),
        parquet=lambda: blocks.write_parquet(str(folder)),
    )
    size = f"{blocks.size_bytes() / 1e6:,.0f} MB in {blocks.num_blocks()} blocks"
    of = "times of write_parquet"
    files, whole = (ratio(seconds, "parquet", name) for name in ("files", "hdf5"))
    yield Figure(f"{size}: rate of the files", files, of, ">= 2", seconds)
    yield Figure(f"{size}: rate with an index", whole, of, runs=seconds)


def growth_of_a_task() -> float:
    """MiB above a block while its file is written."""
    values = np.random.default_rng(0).random((BLOCK_ROWS, CLASSES), dtype="float32")
    table = BlockAccessor.batch_to_arrow_block(
        {"id": np.arange(BLOCK_ROWS), "probabilities": values}
    )
    block = BlockAccessor.for_block(table)
    with tempfile.TemporaryDirectory() as folder:
        sink = HDF5Datasink(folder)

        def write(rows: BlockAccessor) -> None:
            with sink.open_output_stream(f"{folder}/file.h5") as file:
                sink.write_block_to_file(rows, file)

        write(BlockAccessor.for_block(table.slice(0, 10)))  # what is loaded only once
        return peak_growth(lambda: write(block))


def predicting(folder: Path) -> Iterator[Figure]:
    """A whole job of small rows."""
    # Here, because the processes of the other figures, and Ray's, need no Keras.
    import keras  # noqa: PLC0415

    from kerasext.models import ClassifierModel  # noqa: PLC0415

    layers = [keras.Input((16,)), keras.layers.Dense(64, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    ClassifierModel.from_model(model).save(folder / "model.keras")
    rows = ray.data.range(PREDICTED_ROWS, override_num_blocks=20)
    job = rows.map_batches(features, batch_size=None).map_batches(
        KerasPredictor,
        fn_constructor_args=(str(folder / "model.keras"),),
        batch_size=4096,
        compute=ray.data.ActorPoolStrategy(size=ACTORS),
    )
    start = time.perf_counter()
    job.write_datasink(HDF5Datasink(str(folder / "out"), min_rows_per_file=PREDICTED_ROWS // 10))
    seconds = time.perf_counter() - start
    with PredictionFile(folder / "out/index.h5") as file:
        if not np.array_equal(file["ids"][:], np.arange(PREDICTED_ROWS)):
            raise AssertionError("rows are missing, or there twice")
    files = [path.stat().st_size for path in (folder / "out").glob("*.h5")]
    name = f"{PREDICTED_ROWS:,} rows of 10 classes through {ACTORS} actors"
    yield Figure(name, seconds, "s")
    yield Figure(f"{name}: files", len(files) - 1, "files")
    yield Figure(f"{name}: size with the index", sum(files) / PREDICTED_ROWS, "bytes of a row")


def indexing(folder: Path) -> Iterator[Figure]:
    """An index over many files: time, size, memory."""
    for number in range(INDEX_FILES):
        writer = PredictionFileWriter(folder / f"{number:05}.h5", expected_rows=INDEX_ROWS)
        first = number * INDEX_ROWS
        labels = np.zeros(INDEX_ROWS, np.int32)
        writer.append({"ids": np.arange(first, first + INDEX_ROWS), "labels": labels})
        writer.finish()
    rows = INDEX_FILES * INDEX_ROWS
    name = f"index over {INDEX_FILES} files of {rows:,} rows"
    start = time.perf_counter()
    grown = in_own_process(__file__, "index", str(folder))
    yield Figure(f"{name}: time", time.perf_counter() - start, "s")
    size = (folder / "index.h5").stat().st_size
    yield Figure(f"{name}: size", size / rows, "bytes of a row")
    yield Figure(f"{name}: growth of resident memory", grown * 2**20 / rows, "bytes of a row")


def figures() -> Iterator[Figure]:
    """Measures."""
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    # Under `run.py`, Ray would send functions by name, and each worker would import Keras too.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        with tempfile.TemporaryDirectory() as name:
            for number, part in enumerate((writing, predicting)):
                folder = Path(name) / str(number)
                folder.mkdir()
                yield from part(folder)
    finally:
        ray.shutdown()
    size = f"a block of {BLOCK_ROWS * CLASSES * 4 // 2**20} MiB"
    grown = in_own_process(__file__, "task")
    yield Figure(f"{size}: growth of resident memory", grown, "MiB", "<= 64")
    with tempfile.TemporaryDirectory() as name:
        yield from indexing(Path(name))


if __name__ == "__main__":
    if sys.argv[1:] == ["task"]:
        print(growth_of_a_task())
    elif sys.argv[1:2] == ["index"]:
        print(peak_growth(lambda: index_shards(sys.argv[2])))
    else:
        print(machine())
        show(figures())
