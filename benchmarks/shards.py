"""What it costs to read rows through an index of shards instead of from one file.

The same rows are in one file and in 1, 16 and 128 shards: in contiguous ranges; and, for 16, dealt
out in batches and row by row, as `tf.data`'s `shard` does after and before `batch`.

    python benchmarks/shards.py
"""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from measure import Figure, alternate, amount, machine, ratio, show

from kerasext import PredictionFile
from kerasext.shards import index_shards, merge_shards
from kerasext.storage import PredictionFileWriter

ROWS = amount(32768, smallest=2048)
CLASSES = 512  # 64 MiB in float32
SLICE = 256
BATCH = 64
RUNS = amount(15, smallest=1)
# Row by row there are as many runs as rows, and an index has 4096 at most: a smaller job.
FEW_ROWS = amount(4096, smallest=256)


def write(path: Path, rows: np.ndarray, ids: np.ndarray) -> None:
    """Writes a file in steps of some rows."""
    writer = PredictionFileWriter(path, expected_rows=len(rows))
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        writer.append({"probabilities": rows[part], "ids": ids[part]})
    writer.finish()


def write_shards(folder: Path, rows: np.ndarray, parts: list[np.ndarray]) -> Path:
    """Writes the rows of each part to a shard, and returns the index."""
    folder.mkdir()
    for number, part in enumerate(parts):
        write(folder / f"part-{number:04}.h5", rows[part], part)
    return index_shards(folder)


def splits() -> dict[str, tuple[int, list[np.ndarray]]]:
    """How many rows there are, and which are in each shard, by the name of the split."""
    everything = np.arange(ROWS)
    few = np.arange(FEW_ROWS)
    return {
        **{f"{n} in ranges": (ROWS, np.array_split(everything, n)) for n in (1, 16, 128)},
        "16, dealt by batch": (
            ROWS,
            [everything[everything // BATCH % 16 == n] for n in range(16)],
        ),
        f"16 of {FEW_ROWS} rows in ranges": (FEW_ROWS, np.array_split(few, 16)),
        f"16 of {FEW_ROWS} rows, dealt by row": (FEW_ROWS, [few[few % 16 == n] for n in range(16)]),
    }


def open_and_read(path: Path) -> None:
    """Opens a file and reads all rows."""
    with PredictionFile(path) as predictions:
        read_whole(predictions)


def read_by_h5py(path: Path) -> None:
    """Opens a file and reads all rows as other tools do."""
    with h5py.File(path, "r", locking=False) as file:
        file["probabilities"][:]


def read_whole(predictions: PredictionFile) -> None:
    """Reads all rows."""
    predictions["probabilities"][:]


def read_slices(predictions: PredictionFile) -> None:
    """Reads all rows, some at a time."""
    output = predictions["probabilities"]
    for start in range(0, len(output), SLICE):
        output[start : start + SLICE]


READS_BY_PATH = {"opened and read whole": open_and_read, "the same by h5py": read_by_h5py}
READS = {"read whole": (read_whole, "<= 1.2"), f"{SLICE}-row slices": (read_slices, "")}


def compared(name: str, read: Callable, files: dict[str, object], target: str = "") -> Figure:
    """How long a read takes of an index, compared with one file."""
    seconds = alternate(RUNS, **{key: functools.partial(read, file) for key, file in files.items()})
    return Figure(name, ratio(seconds, "many", "one"), "of one file", target, seconds)


def figures() -> Iterator[Figure]:
    """Measures."""
    random = np.random.default_rng(0)
    rows = random.random((ROWS, CLASSES), dtype="float32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, (count, parts) in splits().items():
            one = folder / f"one-{count}.h5"
            if not one.exists():
                write(one, rows[:count], np.arange(count))
            index = write_shards(folder / split, rows, parts)
            by_path = {"one": one, "many": index}
            for what, read in READS_BY_PATH.items():
                yield compared(f"{split}: {what}", read, by_path)
            with PredictionFile(one) as single, PredictionFile(index) as many:
                open_files = {"one": single, "many": many}
                for what, (read, goal) in READS.items():
                    target = goal if split == "16 in ranges" else ""
                    yield compared(f"{split}: {what}", read, open_files, target)
            yield Figure(f"{split}: size of the index", index.stat().st_size / 1024, "KiB")
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
