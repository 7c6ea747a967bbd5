import itertools
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.writing.compression import check_compression

ROWS = 100_000  # of which each output that is compressed has several chunks
CHOICES = [
    None,
    "gzip",
    "zstd",
    "blosc2",
    "bitshuffle",
    hdf5plugin.Zstd(clevel=3),
    hdf5plugin.Blosc2(cname="lz4", clevel=5),
    hdf5plugin.Bitshuffle(cname="zstd", clevel=2),
    {"labels": "zstd", "head/text": None},
]


def make_step(start, stop):
    """Rows of every kind of dtype that compresses in its own way."""
    index = np.arange(start, stop)
    return {
        "labels": (index % 7).astype("int32"),
        "probabilities": np.repeat((index / ROWS).astype("float32")[:, None], 10, axis=1),
        "wide": np.repeat(index.astype("int16")[:, None], 60, axis=1),
        "flags": index % 3 == 0,
        "complex": index.astype("complex64"),
        "head/text": np.array([f"é{i % 100}" for i in index], object),
    }


def assert_content(path):
    """Plain h5py reads what was written, through HDF5's own filters."""
    expected = make_step(0, ROWS)
    with h5py.File(path) as file:
        for name, array in expected.items():
            found = file[name].asstr()[()] if name == "head/text" else file[name][()]
            np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("choice", "commits"), [*((choice, 40) for choice in CHOICES), (None, 0), ("gzip", 0)]
)
def test_every_choice_is_read_by_h5py(choice, commits, path):
    """Whatever the choice, and however often it was committed on the way, the rows are the same."""
    writer = PredictionFileWriter(path, compression=choice)
    bounds = np.linspace(0, ROWS, 60, dtype=int)
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        writer.append(make_step(start, stop))
        if number < commits:
            writer.commit()
    writer.finish()
    assert_content(path)


@pytest.mark.parametrize("choice", ["gzip", "zstd", None])
def test_resuming_a_compressed_file(choice, path):
    """A file that ends in a chunk that was stored as it is goes on in the same way."""
    for start, stop in ((0, 11_000), (11_000, 80_000), (80_000, ROWS)):
        writer = PredictionFileWriter(path, mode="resume", compression=choice)
        assert writer.rows == start
        writer.append(make_step(start, stop))
        writer.commit()
        writer.finish() if stop == ROWS else writer.close()
    assert_content(path)


def test_adding_to_a_compressed_file(path):
    """Rows can be added after a last chunk that was compressed."""
    for start, stop in ((0, 70_000), (70_000, ROWS)):
        writer = PredictionFileWriter(path, mode="a")
        writer.append(make_step(start, stop))
        writer.finish()
    assert_content(path)


def filters(path, name):
    """The filters of a dataset, in order."""
    with h5py.File(path) as file:
        properties = file[name].id.get_create_plist()
        return [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]


def test_labels_and_text_shrink(path):
    """Gzip goes with shuffle, as HDF5 has them, and shrinks labels and text to a tenth."""
    writer = PredictionFileWriter(path, compression="gzip")
    writer.append(make_step(0, ROWS))
    writer.finish()
    for name in ("labels", "head/text"):
        assert filters(path, name) == [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
    with h5py.File(path) as file:
        for name in ("labels", "head/text"):
            assert file[name].id.get_storage_size() < file[name].nbytes / 10


def test_outputs_may_differ(path):
    """A choice may be given by output."""
    writer = PredictionFileWriter(path, compression={"probabilities": "blosc2", "wide": "gzip"})
    writer.append(make_step(0, 10))
    writer.finish()
    assert filters(path, "probabilities") == [32026]
    assert filters(path, "labels") == []
    assert filters(path, "wide") == [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]


@pytest.mark.parametrize("mode", ["x", "a", "resume"])
def test_names_that_are_no_outputs(mode, path):
    """A choice for an output that there is not is refused at the first step, with the nearest."""
    if mode != "x":
        writer = PredictionFileWriter(path)
        writer.append(make_step(0, 10))
        writer.finish() if mode == "a" else writer.close()
    before = path.exists() and path.read_bytes()
    writer = PredictionFileWriter(path, mode=mode, compression={"probabilitys": "gzip"})
    message = (
        "`compression` must name outputs that are written; the nearest is 'probabilities'. "
        "Received: 'probabilitys'"
    )
    with pytest.raises(ValueError, match=message):
        writer.append(make_step(0, 10))
    writer.close()
    assert (path.exists() and path.read_bytes()) == before


def test_commits_cost_no_space(path):
    """A file that is committed after every few rows is hardly larger than one that is not."""
    sizes = []
    for commits in (False, True):
        writer = PredictionFileWriter(path, mode="w", compression="gzip")
        for start in range(0, 60_000, 500):
            writer.append({"labels": np.arange(start, start + 500) % 7})
            if commits:
                writer.commit()
        writer.finish()
        sizes.append(path.stat().st_size)
    raw = 60_000 * 8
    assert sizes[0] < raw / 5
    assert sizes[1] < raw * 1.3


@pytest.mark.parametrize("dtype", ["i8", "f4", "S5"])
def test_rows_without_bytes(dtype, path):
    """An output of no columns has nothing to compress."""
    writer = PredictionFileWriter(path, compression="gzip")
    writer.append({"none": np.zeros((3, 0), dtype)})
    writer.finish()
    with PredictionFile(path) as predictions:
        assert predictions["none"].shape == (3, 0)


@pytest.mark.parametrize("choice", ["lzf", "Zstd", 4, {"labels": "lz77"}, hdf5plugin.LZ4()])
def test_unknown_choices_are_refused(choice):
    """What is not offered is refused, with what is."""
    with pytest.raises(ValueError, match="must be one of"):
        check_compression(choice)


def test_a_missing_hdf5plugin_is_told(monkeypatch):
    """Without hdf5plugin the error says how to get it."""
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(ImportError, match="pip install hdf5plugin"):
        check_compression({"labels": "zstd"})


def test_default(path):
    """Unless asked otherwise floats stay as they are, and what else there is shrinks."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, ROWS))
    writer.finish()
    assert_content(path)
    with h5py.File(path) as file:
        for name, array in make_step(0, ROWS).items():
            assert (file[name].compression == "gzip") is (array.dtype.kind not in "fc"), name
        assert file["labels"].id.get_storage_size() < ROWS * 4 / 10
