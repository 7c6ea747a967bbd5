"""What the storage costs by itself: against raw writes, against the usual h5py loop, and in memory.

python benchmarks/storage_throughput.py
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from measure import Figure, alternate, amount, in_own_process, machine, peak_growth, ratio, show

from kerasext.storage import BackgroundWriter, PredictionFileWriter

RUNS = amount(9, smallest=1)
BLOCKS, STEPS = amount(256, smallest=4), amount(20_000, smallest=200)
MANY_BLOCKS, MANY_STEPS = amount(4000, smallest=40), amount(1_000_000, smallest=1000)
MIB = 1024 * 1024

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


def background(**options):
    """A writer as the callback makes it."""
    writer = PredictionFileWriter(path, **options)
    return BackgroundWriter(
        writer, to_arrays=lambda step: step, queue_bytes=32 * MIB, commit_interval=1.0
    )


def remove():
    """Makes room: replacing a large file takes long, and is no part of what is measured."""
    path.unlink(missing_ok=True)


def write_blocks(blocks):
    """1 MiB at a time through the writer, which waits for the disk at its end."""
    writer = background()
    for block in blocks:
        writer.append({"x": block}, len(block))
    writer.finish()


def write_raw(blocks):
    """The same blocks by plain writes, with the same wait at the end."""
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def write_steps(steps):
    """Steps of 32 rows of 10 numbers through the writer."""
    writer = background()
    for step in steps:
        writer.append({"x": step}, len(step))
    writer.finish()


def write_by_resizing(steps):
    """The loop that people write: resize and append at every step."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", shape=(0, 10), maxshape=(None, 10), dtype="f4")
        for step in steps:
            dataset.resize(len(dataset) + len(step), axis=0)
            dataset[-len(step) :] = step


def write_4_gb():
    """4 GB in steps of 1 MB."""
    block = np.ones((1000, 250), np.float32)
    writer = background()
    for _ in range(MANY_BLOCKS):
        writer.append({"x": block}, len(block))
    writer.finish()


def write_1_000_000_steps():
    """1,000,000 steps of three small outputs."""
    step = {"p": np.ones((32, 10), "f4"), "l": np.ones(32, "i4"), "c": np.ones(32, "f4")}
    writer = background()
    for _ in range(MANY_STEPS):
        writer.append(step, 32)
    writer.finish()


def figures() -> Iterator[Figure]:
    """Measures."""
    blocks = list(np.random.default_rng(0).random((BLOCKS, 1024, 256), dtype=np.float32))
    seconds = alternate(
        RUNS, remove, writer=lambda: write_blocks(blocks), raw=lambda: write_raw(blocks)
    )
    value = ratio(seconds, "raw", "writer")
    yield Figure(
        f"{BLOCKS} blocks of 1 MiB and one fsync: rate", value, "of raw writes", runs=seconds
    )
    steps = [np.ones((32, 10), np.float32)] * STEPS
    seconds = alternate(
        RUNS, remove, writer=lambda: write_steps(steps), resizing=lambda: write_by_resizing(steps)
    )
    value = ratio(seconds, "resizing", "writer")
    yield Figure(
        f"{STEPS:,} steps of 32 x 10: speed", value, "times that of resizing", runs=seconds
    )
    for name in ("write_4_gb", "write_1_000_000_steps"):
        grown = in_own_process(__file__, name)
        yield Figure(f"{name}: resident memory grows", grown, "MiB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_steps([np.ones((32, 10), np.float32)])
        remove()
        print(peak_growth(globals()[sys.argv[1]]))
    else:
        print(machine())
        show(figures())
