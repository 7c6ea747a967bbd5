"""Opens indexes that are damaged, or whose shards are, and reads everything in them.

    python fuzz_index.py FOLDER SEED FIRST COUNT

Prints what `fuzz_prediction_file.py` prints, whose ways to damage a file these are. A case is
determined by the seed and its number. A crash leaves it in a folder of FOLDER.

Rows that are read where chunks were damaged, which HDF5 has no checksums of, may be wrong; then
`verify` must say so. No case may open a file beyond the folder.
"""

import contextlib
import faulthandler
import resource
import sys
from pathlib import Path

import numpy as np
from fuzz_prediction_file import MEMORY, SECONDS, Valid, blank, cut, equal, find_parts, flip, move

from kerasext.shards import index_shards, verify_index
from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows, is_index

ROWS = 60
INDEX = "index.h5"
KINDS = [flip, flip, cut, blank, move]
opened: list[str] = []


def ragged(rows: list[np.ndarray]) -> RaggedRows:
    """Rows of different lengths as one."""
    return RaggedRows(np.concatenate(rows), np.array([[len(row)] for row in rows]))


def valid_jobs(folder: Path) -> list[dict[str, Valid]]:
    """Folders of an index and its shards, by name, with the rows of all as those of the index."""
    rng = np.random.default_rng(1)
    probabilities = rng.random((ROWS, 3), "f4")
    numbers = {
        "labels": rng.integers(0, 3, ROWS, "i4"),
        "probabilities": probabilities,
        "deep/half": rng.random((ROWS, 2)).astype("f2"),
        "none": np.zeros((ROWS, 0), "f8"),
        "steps": rng.integers(0, 255, ROWS) * np.float32(1 / 254),
    }
    texts = {
        "text": np.array([f"größe {i}" for i in range(ROWS)], object),
        "ids": np.array([f"{i:03}" for i in range(ROWS)], object),
    }
    wide = {"wide": rng.random((ROWS, 512)), "ids": np.arange(ROWS)}
    tokens = {"r": [rng.random(n % 5) for n in range(ROWS)], "ids": np.arange(ROWS)}
    in_ranges = np.array_split(np.arange(ROWS), 3)
    dealt = [np.arange(ROWS)[number::4] for number in range(4)]

    def make(
        values: dict[str, np.ndarray | list[np.ndarray]], parts: list[np.ndarray]
    ) -> dict[str, Valid]:
        job = folder / str(len(jobs))
        job.mkdir()
        dtypes = {"steps": "u1"} if "steps" in values else None
        for number, rows in enumerate(parts):
            writer = PredictionFileWriter(
                job / f"{number}.h5", dtypes=dtypes, expected_rows=20, ragged="r" in values
            )
            step = {
                name: ragged([array[row] for row in rows]) if name == "r" else array[rows]
                for name, array in values.items()
            }
            writer.append(step)
            writer.finish()
        index_shards(job)
        files = {}
        for path in sorted(job.iterdir()):
            content = path.read_bytes()
            files[path.name] = Valid(content, values if path.name == INDEX else {})
            find_parts(path, files[path.name], 0, heaps=None)
        return files

    jobs: list[dict[str, Valid]] = []
    for values, parts in (
        (numbers, in_ranges),
        (texts, dealt),
        (texts, [*in_ranges, np.arange(0)]),
        (wide, in_ranges),
        (tokens, dealt),
    ):
        jobs.append(make(values, parts))
    return jobs


def damaged(job: dict[str, Valid], rng: np.random.Generator) -> tuple[str, bytes, bool]:
    """A name, a damaged copy, and whether its rows can be wrong with every checksum right."""
    names = sorted(job)
    name = INDEX if rng.random() < 0.7 else names[rng.integers(len(names))]
    valid = job[name]
    content = bytearray(valid.content)
    touched = list(KINDS[rng.integers(len(KINDS))](content, rng, valid))
    loose = any(p.start < t.stop and t.start < p.stop for p in valid.free for t in touched)
    return name, bytes(content), loose


def read_all(path: Path) -> tuple[dict[str, np.ndarray], bool]:
    """Reads whatever an index shows, and whether it is what was written."""
    assert isinstance(is_index(path), bool)
    with contextlib.suppress(ValueError):
        verify_index(path)
    with PredictionFile(path) as predictions:
        _ = (repr(predictions), predictions.class_names, predictions.metadata, predictions.origin)
        predictions.refresh()
        for batch in predictions.iter_batches(max(predictions.rows // 3, 1)):
            assert set(batch) == set(predictions)
        for output in predictions.values():
            if predictions.rows:
                output[[-1, 0]]
        values = {name: output[:] for name, output in predictions.items()}
        try:
            predictions.verify()
        except ValueError:
            return values, False
        return values, True


def outcome(values: dict[str, np.ndarray], path: Path, *, loose: bool) -> str:
    """What came of reading a damaged index."""
    opened.clear()
    try:
        found, is_verified = read_all(path)
    except ValueError as error:
        named = str(path.parent) in str(error)
        said = "refused" if named else f"unnamed: {type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001
        return f"wrong error: {type(error).__name__}: {error}"
    else:
        said = "read"
        if found.keys() != values.keys():
            said = f"wrong outputs: {sorted(found)}"
        for name, value in found.items():
            if not equal(value, values[name]) and (is_verified or not loose):
                said = f"wrong rows of {name}"
    outside = [name for name in opened if Path(name).parent != path.parent]
    return f"opened {outside}" if outside else said


def note_opened(event: str, arguments: tuple) -> None:
    """Keeps what Python opens, for HDF5 itself is given no path."""
    if event == "open" and isinstance(arguments[0], str):
        opened.append(arguments[0])


def main() -> None:
    """Runs the cases that the command line asks for."""
    folder, seed, first, count = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    faulthandler.enable()
    jobs = valid_jobs(folder)
    for number, job in enumerate(jobs):  # which loads modules
        found, is_verified = read_all(folder / str(number) / INDEX)
        right = job[INDEX].values
        assert is_verified
        assert all(equal(found[name], right[name]) for name in right)
    sys.addaudithook(note_opened)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        which = int(rng.integers(len(jobs)))
        job, place = jobs[which], folder / str(which)
        name, content, loose = damaged(job, rng)
        (place / name).write_bytes(content)
        print(number, "loose" if loose else "exact", end=" ", flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(outcome(job[INDEX].values, place / INDEX, loose=loose), flush=True)
        (place / name).write_bytes(job[name].content)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
