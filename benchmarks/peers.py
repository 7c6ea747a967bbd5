"""What users write by hand beside kerasext, as fast as it gets in plain Keras, TensorFlow and h5py.

Files have chunked datasets of about 1 MiB per chunk, written a whole chunk at a time. Labels are
compressed as kerasext does by default, floats are not.
"""

import os
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from measure import alternate, amount

Job = Callable[[], object]

CHUNK_BYTES = 2**20
COMPRESSED = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
RUNS_OF_A_SIZE = amount(3, smallest=1)


class BufferedDataset:
    """A dataset of known length, written in whole chunks.

    Args:
        h5file: Open `h5py.File`.
        name: String. The name of the dataset.
        rows: Int. Its length.
        first: Array. The first batch, for the shape and the dtype.
    """

    def __init__(self, h5file: h5py.File, name: str, rows: int, first: np.ndarray) -> None:
        # A power of two, as batch sizes are: large batches are then written without a copy.
        chunk_rows = min(2 ** round(np.log2(CHUNK_BYTES / first[:1].nbytes)), rows)
        shape = first.shape[1:]
        options = {} if first.dtype.kind == "f" else COMPRESSED
        self._h5ds = h5file.create_dataset(
            name, (rows, *shape), first.dtype, chunks=(chunk_rows, *shape), **options
        )
        self._buffer = np.empty((chunk_rows, *shape), first.dtype)
        self._buffered = self._written = 0

    def append(self, values: np.ndarray) -> None:
        """Adds rows."""
        chunk_rows = len(self._buffer)
        while len(values):
            if not self._buffered and len(values) >= chunk_rows:
                taken = len(values) // chunk_rows * chunk_rows
                self._write(values[:taken])
            else:
                taken = min(len(values), chunk_rows - self._buffered)
                self._buffer[self._buffered : self._buffered + taken] = values[:taken]
                self._buffered += taken
                if self._buffered == chunk_rows:
                    self.flush()
            values = values[taken:]

    def flush(self) -> None:
        """Writes what is left."""
        self._write(self._buffer[: self._buffered])
        self._buffered = 0

    def _write(self, values: np.ndarray) -> None:
        self._h5ds[self._written : self._written + len(values)] = values
        self._written += len(values)


def write_steps(
    path: Path, rows: int, steps: Iterable[dict[str, np.ndarray]], *, fsync: bool
) -> None:
    """Writes the outputs of all steps to a file.

    Args:
        path: Path. The file, which is replaced.
        rows: Int. Rows of all steps.
        steps: Iterable of dicts from the name of an output to its rows.
        fsync: Bool. Whether to wait for the disk at the end.
    """
    with h5py.File(path, "w", libver="latest") as h5file:
        datasets: dict[str, BufferedDataset] = {}
        for step in steps:
            for name, values in step.items():
                if name not in datasets:
                    datasets[name] = BufferedDataset(h5file, name, rows, values)
                datasets[name].append(values)
        for dataset in datasets.values():
            dataset.flush()
    if fsync:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def plain(model: keras.Model, rows: Any, batch_size: int) -> Job:
    """`predict`, which keeps its results in memory."""
    return lambda: model.predict(rows, batch_size=batch_size, verbose=0)


def loop_over_batches(model: keras.Model, rows: np.ndarray, batch_size: int, path: Path) -> Job:
    """`predict_on_batch`, and a file that the disk isn't waited for."""

    def steps():
        for start in range(0, len(rows), batch_size):
            step = model.predict_on_batch(rows[start : start + batch_size])
            yield step if isinstance(step, dict) else {"predictions": np.asarray(step)}

    return lambda: write_steps(path, len(rows), steps(), fsync=False)


def _compiled_batches(model: keras.Model, rows: np.ndarray, batch_size: int) -> Callable:
    """A compiled function over all batches of a model with a mixin, and traced already."""
    import tensorflow as tf  # noqa: PLC0415 - other backends have peers of their own

    signature = [tf.TensorSpec((None, *rows.shape[1:]), rows.dtype)]

    @tf.function(input_signature=signature)
    def step(batch):
        return model.postprocess(model(batch, training=False))

    concrete = step.get_concrete_function()
    return lambda: (
        concrete(tf.convert_to_tensor(rows[start : start + batch_size]))
        for start in range(0, len(rows), batch_size)
    )


def compiled_loop(model: keras.Model, rows: np.ndarray, batch_size: int, path: Path) -> Job:
    """A compiled function, and a file that the disk is waited for. TensorFlow only."""
    batches = _compiled_batches(model, rows, batch_size)

    def run():
        steps = ({name: out.numpy() for name, out in step.items()} for step in batches())
        write_steps(path, len(rows), steps, fsync=True)

    return run


def loop_in_memory(model: keras.Model, rows: np.ndarray, batch_size: int) -> Job:
    """A compiled function, whose results stay in memory as they are. TensorFlow only."""
    batches = _compiled_batches(model, rows, batch_size)
    return lambda: list(batches())


def best_size(job: Callable[[int], Job], sizes: Iterable[int], before: Job = lambda: None) -> int:
    """The batch size at which a job is fastest, by a few runs of each.

    Args:
        job: Callable. Makes the job, by the batch size.
        sizes: Ints. The sizes to try.
        before: Callable. Called before each run, and not timed.
    """
    seconds = {
        size: statistics.median(alternate(RUNS_OF_A_SIZE, before, job=job(size))["job"])
        for size in sizes
    }
    return min(seconds, key=seconds.get)


def check_same_rows(path: Path, other: Path) -> None:
    """Raises an error if a peer's file doesn't hold what the file of kerasext does."""
    with h5py.File(path) as h5file, h5py.File(other) as peer:
        for name in peer:
            np.testing.assert_allclose(peer[name][()], h5file[name][()], rtol=1e-5, err_msg=name)
