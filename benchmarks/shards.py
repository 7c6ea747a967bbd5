"""What it costs to read rows through an index of shards instead of from one file.

The same rows are in one file and in 1, 16, 128 and 1,000 shards: in contiguous ranges; and, for 16,
dealt out in batches and row by row, as `tf.data`'s `shard` does after and before `batch`. The file
of virtual datasets is read by h5py.

    python benchmarks/shards.py
"""

import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from measure import Figure, alternate, amount, machine, ratio, show

from kerasext import PredictionFile
from kerasext.shards import index_shards, merge_shards
from kerasext.storage import PredictionFileWriter

ROWS = amount(32768, smallest=2048)
CLASSES = 512  # 64 MiB in float32
SLICE = 256
SINGLE_ROWS = 100
BATCH = 64
RUNS = amount(15, smallest=1)
SHARDS = amount((1, 16, 128, 1000), smallest=(1, 16))
# Row by row there are as many runs as rows, and virtual datasets have 4,096 at most.
FEW_ROWS = amount(4096, smallest=256)
OUTPUT = "probabilities"


def write(path: Path, rows: np.ndarray, ids: np.ndarray) -> None:
    """Writes a file in steps of some rows."""
    writer = PredictionFileWriter(path, expected_rows=len(rows))
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        writer.append({OUTPUT: rows[part], "ids": ids[part]})
    writer.finish()


def write_shards(folder: Path, rows: np.ndarray, parts: list[np.ndarray]) -> None:
    """Writes the rows of each part to a shard, an index and the file of virtual datasets."""
    folder.mkdir()
    for number, part in enumerate(parts):
        write(folder / f"part-{number:04}.h5", rows[part], part)
    index_shards(folder, virtual="all.h5")


def splits() -> dict[str, tuple[int, list[np.ndarray]]]:
    """How many rows there are, and which are in each shard, by the name of the split."""
    everything = np.arange(ROWS)
    few = np.arange(FEW_ROWS)
    return {
        **{f"{n} in ranges": (ROWS, np.array_split(everything, n)) for n in SHARDS},
        "16, dealt by batch": (
            ROWS,
            [everything[everything // BATCH % 16 == n] for n in range(16)],
        ),
        f"16 of {FEW_ROWS} rows in ranges": (FEW_ROWS, np.array_split(few, 16)),
        f"16 of {FEW_ROWS} rows, dealt by row": (FEW_ROWS, [few[few % 16 == n] for n in range(16)]),
    }


def open_h5py(path: Path) -> h5py.File:
    """Opens a file as other tools do."""
    return h5py.File(path, "r", locking=False)


def read_whole(output: Any) -> None:
    """Reads all rows."""
    output[:]


def read_slices(output: Any) -> None:
    """Reads all rows, some at a time."""
    for start in range(0, output.shape[0], SLICE):
        output[start : start + SLICE]


def read_single_rows(output: Any) -> None:
    """Reads some rows, each by itself and anywhere."""
    for row in np.random.default_rng(0).integers(0, output.shape[0], SINGLE_ROWS).tolist():
        output[row]


def opened_and_read(open_file: Callable, path: Path) -> Callable[[], None]:
    """A function that opens a file and reads all rows."""

    def run() -> None:
        with open_file(path) as file:
            read_whole(file[OUTPUT])

    return run


READS = {
    "read whole": (read_whole, "<= 1.2"),
    f"{SLICE}-row slices": (read_slices, ""),
    f"{SINGLE_ROWS} single rows": (read_single_rows, ""),
}


def compared(name: str, variants: dict[str, Callable], target: str = "") -> Iterator[Figure]:
    """How long a read takes of an index, compared with one file, and with virtual datasets."""
    seconds = alternate(RUNS, **variants)
    yield Figure(name, ratio(seconds, "index", "one"), "of one file", target, seconds)
    yield Figure(name, ratio(seconds, "index", "virtual"), "of h5py over virtual datasets")


def figures_of(split: str, one: Path, folder: Path) -> Iterator[Figure]:
    """Measures one split of the rows."""
    index, virtual = folder / "index.h5", folder / "all.h5"
    yield from compared(
        f"{split}: opened and read whole",
        {
            "one": opened_and_read(PredictionFile, one),
            "index": opened_and_read(PredictionFile, index),
            "virtual": opened_and_read(open_h5py, virtual),
        },
    )
    with (
        PredictionFile(one) as one_file,
        PredictionFile(index) as index_file,
        open_h5py(virtual) as virtual_file,
    ):
        files = {"one": one_file, "index": index_file, "virtual": virtual_file}
        outputs = {name: file[OUTPUT] for name, file in files.items()}
        for what, (read, goal) in READS.items():
            variants = {name: lambda o=o, read=read: read(o) for name, o in outputs.items()}
            target = goal if split == "16 in ranges" else ""
            yield from compared(f"{split}: {what}", variants, target)
    yield Figure(f"{split}: size of the index", index.stat().st_size / 1024, "KiB")


def figures() -> Iterator[Figure]:
    """Measures."""
    # HDF5 opens all shards of a virtual dataset at once.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    random = np.random.default_rng(0)
    rows = random.random((ROWS, CLASSES), dtype="float32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, (count, parts) in splits().items():
            one = folder / f"one-{count}.h5"
            if not one.exists():
                write(one, rows[:count], np.arange(count))
            write_shards(folder / split, rows, parts)
            yield from figures_of(split, one, folder / split)
        made = alternate(
            amount(3, smallest=1),
            index=lambda: index_shards(folder / "16 in ranges"),
            merge=lambda: merge_shards(folder / "16 in ranges", folder / "merged.h5"),
            before=lambda: (folder / "merged.h5").unlink(missing_ok=True),
        )
        megabytes = ROWS * CLASSES * 4 / 1e6
        for what, seconds in made.items():
            yield Figure(f"16 in ranges: {what} of {megabytes:.0f} MB", min(seconds), "s")


if __name__ == "__main__":
    print(machine())
    show(figures())
