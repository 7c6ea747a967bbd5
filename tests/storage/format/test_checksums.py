import contextlib
import itertools
import struct
import zlib

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows
from kerasext.storage.format.checksums import checksum
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.writing.chunk_writer import ChunkWriter

ROWS = 70_000


def make_step(start, stop):
    """Rows of several dtypes and of chunks of several lengths."""
    index = np.arange(start, stop)
    return {
        "probabilities": np.repeat(index.astype("float32")[:, None], 7, axis=1),
        "labels": index.astype("int32"),
        "flags": index % 3 == 0,
        "head/text": np.array([f"{i % 100}" for i in index], object),
    }


def write(path, *bounds, end="finish", **options):
    """Writes the rows between the bounds, a commit after each step."""
    writer = PredictionFileWriter(path, **options)
    for start, stop in itertools.pairwise(bounds):
        writer.append(make_step(start, stop))
        writer.commit()
    getattr(writer, end)()


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
@pytest.mark.parametrize("bounds", [(0, ROWS), (0, 1), (0, 5, 40_000, 40_001, ROWS), (0, 0)])
def test_what_was_written_is_verified(bounds, compression, path):
    """Whatever way the rows came, the sums are those of the file."""
    write(path, *bounds, compression=compression)
    with PredictionFile(path) as predictions:
        predictions.verify()


def test_a_file_that_goes_on_is_verified(path):
    """Incomplete, resumed and added to, a file has the sums of its rows at any time."""
    write(path, 0, 30_000, end="close")
    for options in (
        {"bounds": (30_000, 50_000), "end": "close", "mode": "resume"},
        {"bounds": (50_000, 60_000), "end": "finish", "mode": "resume"},
        {"bounds": (60_000, ROWS), "end": "finish", "mode": "a"},
    ):
        with PredictionFile(path) as predictions:
            predictions.verify()
        write(path, *options.pop("bounds"), **options)
    with PredictionFile(path) as predictions:
        predictions.verify()
        assert predictions.rows == ROWS


@pytest.mark.parametrize("row", [0, 40_000, ROWS - 1])
@pytest.mark.parametrize("name", ["probabilities", "labels", "flags", "head/text"])
def test_any_other_value_is_found(name, row, path):
    """A value that was changed after it was written is found, and the output named."""
    write(path, 0, ROWS)
    with h5py.File(path, "r+") as file:
        value = file[name][row]
        changes = {"flags": np.invert, "head/text": lambda _: b"zz"}
        file[name][row] = changes.get(name, lambda value: value + 1)(value)
    with (
        PredictionFile(path) as predictions,
        pytest.raises(ValueError, match=f"'{name}' are not those.*{path.name}"),
    ):
        predictions.verify()


def test_flipped_bits_in_the_file_are_found(path):
    """A flipped bit anywhere in the data of an uncompressed output is found."""
    write(path, 0, ROWS, compression=None)
    with h5py.File(path) as file:
        places = [
            chunk.byte_offset + offset
            for i in range(file["probabilities"].id.get_num_chunks())
            for chunk in [file["probabilities"].id.get_chunk_info(i)]
            for offset in (0, 1001)
        ]
    content = path.read_bytes()
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with (
            PredictionFile(path) as predictions,
            pytest.raises(ValueError, match="'probabilities' are not those"),
        ):
            predictions.verify()


def test_missing_sums_are_found(path):
    """A file without its sums can't be verified, and says so."""
    write(path, 0, 10)
    with h5py.File(path, "r+") as file:
        del file["_kerasext/sums/labels"]
    with PredictionFile(path) as predictions, pytest.raises(ValueError, match="'labels'"):
        predictions.verify()


def opened_copy(path):
    """A copy of a file, which shares nothing with its writer, opened by plain h5py."""
    copy = path.with_name("copy.h5")
    copy.write_bytes(path.read_bytes())
    return h5py.File(copy, "r", swmr=True, locking=False)


def of_full_chunks(path):
    """The stored checksums and those that the full chunks should have, by name; plain h5py."""
    stored, right = {}, {}
    with opened_copy(path) as file:
        for name, rows in committed(file).items():
            length = file[name].chunks[0]
            full = rows // length
            content = file[name][: full * length]
            stored[name] = file[f"_kerasext/sums/{name}"][:full].tolist()
            right[name] = [
                zlib.crc32(content[at : at + length].tobytes())
                for at in range(0, full * length, length)
            ]
    return stored, right


def of_all_rows(path):
    """The checksum of all rows in the commit record, and the right one; plain h5py."""
    parts = []
    with opened_copy(path) as file:
        for name, rows in sorted(committed(file).items()):
            full = rows // file[name].chunks[0]
            sums = file[f"_kerasext/sums/{name}"][:full]
            rest = file[name][full * file[name].chunks[0] : rows]
            parts += [zlib.crc32(sums.tobytes()), zlib.crc32(rest.tobytes())]
        record = file["_kerasext/record"][()]
    if not record["rows"]:
        parts = [0] * len(parts)
    return int(record["rows_checksum"]), zlib.crc32(struct.pack(f"<{len(parts)}I", *parts))


def committed(file):
    """Committed entries of each dataset."""
    rows, found = int(file["_kerasext/record"]["rows"]), {}

    def visit(name, node):
        if not isinstance(node, h5py.Dataset):
            return
        group = file[name].parent
        if name.endswith("/row_splits"):
            found[name] = rows + 1
        elif name.endswith("/values"):
            found[name] = int(group["row_splits"][rows])
        else:
            found[name] = rows

    file["_kerasext/sums"].visititems(visit)
    return found


def ragged_steps(sizes):
    """Steps with rows of different shapes, and one output of one shape."""
    first = 0
    for size in sizes:
        row = np.arange(first, first + size)
        shapes = np.stack([row % 3, row % 4], axis=1)
        boxes = RaggedRows(np.repeat(row, shapes.prod(axis=1)).astype("f4"), shapes)
        yield {"boxes": boxes, "labels": row.astype("i4")}
        first += size


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("expected_rows", [20, 5000])
def test_every_commit_covers_every_row(compression, expected_rows, path):
    """At each commit the record has the CRC-32 of all rows: of any shape, compressed, resumed."""
    sizes = [0, 5, 3000, 1, 4000, 2999, 7]
    options = {"ragged": True, "compression": compression, "expected_rows": expected_rows}
    writer = PredictionFileWriter(path, **options)
    for number, step in enumerate(ragged_steps(sizes)):
        if number == 4:
            writer.close()
            assert len(set(of_all_rows(path))) == 1
            writer = PredictionFileWriter(path, mode="resume", **options)
        writer.append(step)
        writer.commit()
        assert len(set(of_all_rows(path))) == 1
        stored, right = of_full_chunks(path)
        assert stored == right
    assert sum(map(len, right.values())) > 1
    writer.finish()
    assert len(set(of_all_rows(path))) == 1


def test_rows_of_an_interrupted_step(path, monkeypatch):
    """Ctrl-C within a step leaves the checksum of the rows before it."""
    write_chunk = ChunkWriter._write
    writer = PredictionFileWriter(path, expected_rows=20)
    writer.append(make_step(0, 1000))

    def interrupted(self, *args):
        write_chunk(self, *args)
        if self._path == "labels":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ChunkWriter, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.append(make_step(1000, 20_000))
    writer.close()
    assert len(set(of_all_rows(path))) == 1
    with PredictionFile(path) as predictions:
        assert predictions.rows == 1000
        predictions.verify()


def test_exchanged_pages_are_found(path):
    """Two pages of a chunk that changed places are found."""
    write(path, 0, ROWS, compression=None)
    with h5py.File(path) as file:
        place = file["probabilities"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    first, second = (slice(place + at, place + at + 4096) for at in (0, 8 * 4096))
    content[first], content[second] = content[second], content[first]
    path.write_bytes(content)
    with (
        PredictionFile(path) as predictions,
        pytest.raises(ValueError, match="'probabilities' are not those"),
    ):
        predictions.verify()


@pytest.mark.parametrize("end", ["finish", "close"])
@pytest.mark.parametrize("instead", ["nothing", "soft", "external", "hard", "no sums either"])
def test_an_output_that_is_gone(instead, end, path):
    """An output that was removed, or replaced by a link, is found while its checksums are there.

    If they are gone, too, the commit record still tells.
    """
    write(path, 0, 10, end=end)
    with h5py.File(path, "r+") as file:
        del file["labels"]
        if instead == "soft":
            file["labels"] = h5py.SoftLink("/flags")
        elif instead == "external":
            file["labels"] = h5py.ExternalLink("other.h5", "/labels")
        elif instead == "hard":
            file["labels"] = file["flags"]
        elif instead == "no sums either":
            del file["_kerasext/sums/labels"]
    with (
        pytest.raises(ValueError, match=r"damaged.*(labels|flags|last commit)"),
        contextlib.closing(PredictionFile(path)) as predictions,
    ):
        predictions.verify()


@pytest.mark.parametrize("row", [0, 699, 999])
@pytest.mark.parametrize("name", ["probabilities", "labels", "flags", "head/text"])
def test_damage_in_an_interrupted_file_is_found(name, row, path):
    """Rows after the last full chunk are verified in a file that is not complete, too."""
    write(path, 0, 700, 1000, end="close", expected_rows=20)
    with h5py.File(path, "r+") as file:
        value = file[name][row]
        changes = {"flags": np.invert, "head/text": lambda _: b"zz"}
        file[name][row] = changes.get(name, lambda value: value + 1)(value)
    with (
        PredictionFile(path) as predictions,
        pytest.raises(ValueError, match=f"(rows of '{name}'|last commit) are not those"),
    ):
        predictions.verify()


def test_a_live_file_is_verified(path):
    """Verifying beside the writer raises no alarm, whatever was written since the last look."""
    writer = PredictionFileWriter(path, expected_rows=20)
    for start in range(0, 3000, 100):
        writer.append(make_step(start, start + 100))
        writer.commit()
        if start == 0:
            reader = PredictionFile(path)
        reader.verify()
        if start % 700 == 0:
            reader.refresh()
    writer.append(make_step(3000, 3001))
    reader.verify()
    writer.finish()
    reader.verify()
    reader.close()


def test_a_writer_that_begins_anew_while_rows_are_verified(path, monkeypatch):
    """Rows that a writer replaces while they are read are read again, and not called damaged."""
    write(path, 0, 1000, end="close", expected_rows=20)
    reader = PredictionFile(path)
    find_damage = FileSource.find_damage
    calls = []

    def while_replaced(self):
        calls.append(self)
        if len(calls) == 1:
            write(path, 1000, 1100, mode="resume")
            return "half of a write was read"
        return find_damage(self)

    monkeypatch.setattr(FileSource, "find_damage", while_replaced)
    reader.verify()
    assert (len(calls), reader.rows) == (2, 1100)
    reader.close()


def test_checksum_goes_on():
    """A checksum of two parts is that of the whole, for any dtype and shape."""
    array = np.arange(24, dtype=">f4").reshape(4, 3, 2)
    assert checksum(array) == zlib.crc32(array.tobytes())
    assert checksum(array[1:], checksum(array[:1])) == checksum(array)
    assert checksum(array[:0], 7) == 7
    assert checksum(np.array([b"ab", b""])) == zlib.crc32(b"ab\0\0")
