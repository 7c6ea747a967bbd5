"""Opens damaged copies of valid prediction files, and reads everything in them.

    python fuzz_prediction_file.py FOLDER SEED FIRST COUNT [LONGEST]

Prints the number of a case before it starts, so that a crash or a hang tells which one it was, and
then its outcome: "read", "refused" or what should not have happened. "exact" are those where the
damage is to nothing but what HDF5 has checksums of: rows that are read must be the right ones. Of
the others they must be if `verify` raises nothing.

A case is determined by the seed and its number: run one alone to see it again, in
`FOLDER/damaged.h5`. LONGEST adds files by someone who knows the format: with checksums that fit, on
blocks of metadata up to so many bytes. HDF5 itself does not survive all of these.
"""

import faulthandler
import resource
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedOutput, RaggedRows
from kerasext.storage.reading import file_source as open_file

MEMORY = 4 * 2**30
SECONDS = 20
PAGE = 4096
ATTRIBUTES = {
    "metadata": '{"dataset": "größe", "fold": [1, 2, 3]}',
    "prediction_metadata": '{"task": "multiclass", "thresholds": {"a": 0.5}}',
    "model_name": "net",
    "steps": 7,
    "rate": 0.25,
}
NAMES = ["cat", "größe", "ラベル"]
FORGE = len(sys.argv) > 5
MASK = 0xFFFFFFFF


@dataclass
class Valid:
    """A file as it should be."""

    content: bytes
    values: dict[str, np.ndarray | list[np.ndarray]]
    free: list[range] = field(default_factory=list)  # data, which has no checksum
    blocks: list[range] = field(default_factory=list)  # each is followed by its checksum


def lookup3(data: bytes) -> int:
    """HDF5's checksum, of data of any length."""
    padded = data + bytes(-len(data) % 4)
    words = list(struct.unpack(f"<{len(padded) // 4}I", padded))
    words += [0] * (-len(words) % 3 or (0 if words else 3))
    a = b = c = (0xDEADBEEF + len(data)) & MASK
    for i in range(0, len(words), 3):
        a, b, c = a + words[i] & MASK, b + words[i + 1] & MASK, c + words[i + 2] & MASK
        if i + 3 < len(words):
            for shift in (4, 6, 8, 16, 19, 4):
                a = (a - c & MASK) ^ (c << shift & MASK | c >> 32 - shift)
                c = c + b & MASK
                a, b, c = b, c, a
    for shift in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - (b << shift & MASK | b >> 32 - shift) & MASK
        a, b, c = b, c, a
    return b


def join(name: str, steps: list[dict]) -> np.ndarray | list[np.ndarray]:
    """All rows of an output."""
    parts = [step[name] for step in steps]
    if not isinstance(parts[0], RaggedRows):
        return np.concatenate(parts)
    return [row.astype("U64") if row.dtype == object else row for part in parts for row in part]


def valid_files(folder: Path, *, longest_block: int) -> list[Valid]:
    """Files of many kinds: small and in chunks, complete, left incomplete, killed."""
    rng = np.random.default_rng(1)

    def numbers(rows: int) -> dict[str, np.ndarray]:
        return {
            "labels": rng.integers(0, 3, rows, "i4"),
            "probabilities": rng.random((rows, 3), "f4"),
            "deep/er/half": rng.random((rows, 2)).astype("f2"),
            "deep/flag": rng.random(rows) < 0.5,
            "wave": (rng.random((rows, 2)) + 1j).astype("c8"),
            "none": np.zeros((rows, 0), "f8"),
            "steps": rng.integers(0, 255, rows) * np.float32(1 / 254),
        }

    def texts(rows: int) -> dict[str, np.ndarray]:
        text = np.array([f"größe {i}" for i in range(rows)], object)
        row = np.arange(rows) * 3
        return {"a/text": text, "ids": text, "targets/a": row % 2, "row": row}

    def wide(rows: int) -> dict[str, np.ndarray]:
        return {"wide": rng.random((rows, 512)), "a/labels": rng.integers(0, 3, rows, "u1")}

    def ragged(rows: int) -> dict[str, np.ndarray | RaggedRows]:
        shapes = rng.integers(0, 4, (rows, 2))
        lengths = rng.integers(0, 9, (rows, 1))
        text = np.array([f"größe {i}" for i in range(lengths.sum())], object)
        return {
            "boxes": RaggedRows(rng.random(shapes.prod(axis=1).sum()), shapes),
            "a/text": RaggedRows(text, lengths),
            "a/labels": rng.integers(0, 3, rows, "u1"),
        }

    def make(step: Callable[[int], dict], rows: list[int], end: str, more: dict) -> Valid:
        path = folder / "valid.h5"
        path.unlink(missing_ok=True)
        names = {"a": NAMES} if step in {wide, ragged} else NAMES
        attributes = ATTRIBUTES | more
        writer = PredictionFileWriter(
            path,
            attributes=attributes,
            class_names=names,
            expected_rows=20,
            ragged=step is ragged,
            dtypes={"steps": "u1"} if step is numbers else None,
        )
        steps = [step(number) for number in rows]
        for arrays in steps:
            writer.append(arrays)
            writer.commit()
        if end == "complete":
            writer.finish()
        elif end == "incomplete":
            writer.close()
        content = path.read_bytes()  # of one that is open still: what a kill leaves
        writer.close()
        values = {name: join(name, steps) for name in steps[0]}
        valid = Valid(content, values)
        path.write_bytes(content)
        find_parts(path, valid, longest_block)
        return valid

    return [
        make(numbers, [20, 3], "complete", {}),
        make(numbers, [20, 3], "incomplete", {}),
        make(numbers, [20, 3], "killed", {}),
        make(texts, [9], "complete", {"notes": "x" * 3000}),
        make(texts, [9], "killed", {}),
        make(wide, [4, 60], "complete", {}),
        make(wide, [4, 60], "incomplete", {}),
        make(wide, [4, 60], "killed", {}),
        make(ragged, [20, 3], "complete", {}),
        make(ragged, [20, 3], "incomplete", {}),
        make(ragged, [20, 300], "killed", {}),
        make(numbers, [1], "complete", {f"setting_{i}": i for i in range(40)}),
    ]


def find_parts(path: Path, valid: Valid, longest_block: int, heaps: int | None = 1) -> None:
    """Finds what has no checksum, and what has one."""
    with h5py.File(path, "r", swmr=True, locking=False) as file:

        def visit(_: str, node: h5py.Group | h5py.Dataset) -> None:
            if isinstance(node, h5py.Dataset) and node.chunks:
                node.id.chunk_iter(
                    lambda chunk: valid.free.append(
                        range(chunk.byte_offset, chunk.byte_offset + chunk.size)
                    )
                )

        file.visititems(visit)
    content = valid.content
    valid.blocks.append(range(44))
    if heaps is not None:
        assert content.count(b"GCOL") == heaps, "only the heap of the scales, which is not read"
    data = np.ones(len(content), bool)
    for part in valid.free:
        data[part.start : part.stop] = False
    for name in (b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF", b"EAHD", b"EAIB", b"EADB"):
        start = content.find(name)
        while start >= 0:
            for length in range(12, longest_block):
                stop = start + length
                if not data[start]:
                    break
                (stored,) = struct.unpack("<I", content[stop : stop + 4].ljust(4, b"\0"))
                if stored and stored == lookup3(content[start:stop]):
                    valid.blocks.append(range(start, stop))
                    break
            start = content.find(name, start + 1)


def flip(content: bytearray, rng: np.random.Generator, valid: Valid) -> Iterator[range]:
    """Flips some bits."""
    for _ in range(rng.integers(1, 17)):
        where = place(rng, valid)
        content[where] ^= 1 << int(rng.integers(0, 8))
        yield range(where, where + 1)


def cut(content: bytearray, rng: np.random.Generator, valid: Valid) -> Iterator[range]:
    """Cuts the end off."""
    length = place(rng, valid) if rng.random() < 0.7 else int(rng.integers(0, len(content)))
    del content[length:]
    yield from ()


def blank(content: bytearray, rng: np.random.Generator, valid: Valid) -> Iterator[range]:
    """Overwrites a part."""
    start = place(rng, valid)
    stop = min(len(content), start + int(2 ** rng.uniform(0, 12)))
    content[start:stop] = (b"\0", b"\xff")[rng.integers(2)] * (stop - start)
    yield range(start, stop)


def move(content: bytearray, rng: np.random.Generator, valid: Valid) -> Iterator[range]:
    """Puts a page in the place of another."""
    source, target = (place(rng, valid) // PAGE * PAGE for _ in range(2))
    page = content[source : source + PAGE]
    content[target : target + len(page)] = page
    yield range(target, target + len(page))


def forge(content: bytearray, rng: np.random.Generator, valid: Valid) -> Iterator[range]:
    """Changes what checksums cover, and the checksums as well."""
    for _ in range(rng.integers(1, 4)):
        block = valid.blocks[rng.integers(len(valid.blocks))]
        for _ in range(rng.integers(1, 4)):
            where = int(rng.integers(block.start + 4, block.stop))
            width = min(int(rng.choice([1, 1, 1, 2, 4, 8])), block.stop - where)
            new = int(rng.choice([0, 1, 2, 3, 127, 128, 255, int(rng.integers(256))]))
            more = (b"\xff", b"\0")[rng.integers(2)] * (width - 1)
            content[where : where + width] = bytes([new]) + more
        checksum = struct.pack("<I", lookup3(bytes(content[block.start : block.stop])))
        content[block.stop : block.stop + 4] = checksum
    yield range(len(content))


def place(rng: np.random.Generator, valid: Valid) -> int:
    """A place in the metadata, mostly, and not in empty pages."""
    for _ in range(20):
        where = int(rng.integers(0, len(valid.content)))
        near = valid.content[max(where - 8, 0) : where + 8]
        if any(near) and not any(where in part for part in valid.free):
            break
    return where


def damage(valid: Valid, rng: np.random.Generator) -> tuple[bytes, bool]:
    """A damaged copy, and whether its rows can be wrong with every checksum right."""
    content = bytearray(valid.content)
    kinds = [flip, flip, cut, blank, move] + 3 * [forge] * FORGE
    touched = list(kinds[rng.integers(len(kinds))](content, rng, valid))
    loose = any(p.start < t.stop and t.start < p.stop for p in valid.free for t in touched)
    return bytes(content), loose


def read_all(path: Path) -> dict[str, np.ndarray]:
    """Reads whatever a file shows."""
    with PredictionFile(path) as predictions:
        repr(predictions)
        _ = (predictions.rows, predictions.first_row, predictions.complete, predictions.health)
        _ = (predictions.class_names, predictions.metadata, predictions.prediction_metadata)
        _ = (predictions.origin, [repr(output) for output in predictions.values()])
        predictions.refresh()
        for batch in predictions.iter_batches(max(predictions.rows // 3, 1)):
            assert set(batch) == set(predictions)
        for output in predictions.values():
            if predictions.rows:
                output[[-1, 0]]
            if isinstance(output, RaggedOutput):
                output.padded(slice(3))
        return {name: output[:] for name, output in predictions.items()}


def equal(found: np.ndarray | list, right: np.ndarray | list) -> bool:
    """Whether rows are the right ones."""
    if isinstance(right, list):
        return len(found) == len(right) and all(map(equal, found, right))
    return np.array_equal(found, right.astype(found.dtype))


def is_verified(path: Path) -> bool:
    """Whether a file, be it complete or not, is the one that was written, by its checksums."""
    try:
        with PredictionFile(path) as predictions:
            predictions.verify()
    except ValueError:
        return False
    return True


def outcome(valid: Valid, path: Path, *, loose: bool) -> str:
    """What came of reading a damaged file."""
    try:
        values = read_all(path)
    except ValueError as error:
        named = str(path) in str(error)
        return "refused" if named else f"unnamed: {type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001
        return f"wrong error: {type(error).__name__}: {error}"
    if not loose or is_verified(path):
        if values.keys() != valid.values.keys():
            return f"wrong outputs: {sorted(values)}"
        for name, value in values.items():
            if not equal(value, valid.values[name]):
                return f"wrong rows of {name}"
    return "read"


def main() -> None:
    """Runs the cases that the command line asks for."""
    open_file._PAUSE = 0
    folder, seed, first, count = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    longest = int(sys.argv[5]) if FORGE else 0
    faulthandler.enable()
    warnings.simplefilter("ignore")  # of rows that do not match their checksums
    valid = valid_files(folder, longest_block=longest)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    path = folder / "damaged.h5"
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        one = valid[rng.integers(len(valid))]
        content, loose = damage(one, rng)
        path.write_bytes(content)
        print(number, "loose" if loose else "exact", end=" ", flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(outcome(one, path, loose=loose), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
