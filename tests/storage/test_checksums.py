import itertools

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter

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
