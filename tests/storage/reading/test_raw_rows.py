import contextlib

import h5py
import numpy as np
import pytest

from kerasext.storage.reading.file_view import FileView
from kerasext.storage.reading.raw_rows import RawRows, is_raw

ROWS = 50


@pytest.fixture
def reading(tmp_path):
    """Writes a dataset by h5py, and opens it as the reader does."""
    with contextlib.ExitStack() as stack:

        def write(values, *, userblock_size=0, **options):
            path = tmp_path / "file.h5"
            with h5py.File(path, "w", userblock_size=userblock_size) as file:
                file.create_dataset(
                    "y", data=values, **{"chunks": (8, *values.shape[1:]), **options}
                )
            view = stack.enter_context(contextlib.closing(FileView(path)))
            return stack.enter_context(h5py.File(view, "r"))["y"], view

        yield write


def values_of(dtype, *row_shape):
    """Rows of numbers."""
    return (
        np.arange(ROWS * int(np.prod(row_shape, dtype=int))).reshape(ROWS, *row_shape).astype(dtype)
    )


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "c8", "i8", "u1"])
@pytest.mark.parametrize("row_shape", [(), (3,), (2, 5)])
def test_rows(dtype, row_shape, reading):
    """Every range of rows is read as h5py reads it."""
    values = values_of(dtype, *row_shape)
    dataset, view = reading(values)
    assert is_raw(dataset)
    rows = RawRows(dataset, view)
    for start in range(ROWS):
        for stop in range(start, ROWS + 1):
            target = np.empty((stop - start, *row_shape), dtype)
            rows.read_into(target, start)
            np.testing.assert_array_equal(target, values[start:stop], strict=True)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("f4", {"compression": "gzip"}),
        ("f4", {"fletcher32": True}),
        ("f4", {"chunks": (8, 1)}),
        ("f4", {"userblock_size": 512}),
        (">f4", {}),
        ("?", {}),
        ("S3", {}),
    ],
)
def test_what_hdf5_must_read(dtype, options, reading):
    """Rows that stand otherwise in the file than in memory are for HDF5."""
    dataset, _ = reading(values_of("f4", 3).astype(dtype), **options)
    assert not is_raw(dataset)


def test_floats_of_other_bits(reading):
    """So are floats that have the length of NumPy's, and other bits."""
    dataset, _ = reading(values_of("f4"))
    assert is_raw(dataset)
    other = h5py.h5t.IEEE_F32LE.copy()
    other.set_ebias(100)
    with h5py.File("floats", "w", driver="core", backing_store=False) as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((8,))
        space = h5py.h5s.create_simple((ROWS,))
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"y", other, space, properties))
        assert not is_raw(dataset)


def test_rows_that_are_not_there(reading, tmp_path):
    """A chunk that was never written, or lies beyond the end, is an error and no fill value."""
    dataset, view = reading(values_of("f4"), maxshape=(None,))
    rows, target = RawRows(dataset, view), np.empty(ROWS, "f4")
    rows.read_into(target, 0)
    (tmp_path / "file.h5").write_bytes((tmp_path / "file.h5").read_bytes()[:-40])
    with pytest.raises(OSError, match="it ends before byte"):
        rows.read_into(target, 0)


def test_chunks_that_were_never_written(tmp_path):
    """There HDF5 gives fill values."""
    with h5py.File(tmp_path / "file.h5", "w") as file:
        dataset = file.create_dataset("y", (ROWS,), "f4", chunks=(8,))
        dataset[:8] = 1
    with (
        contextlib.closing(FileView(tmp_path / "file.h5")) as view,
        h5py.File(view, "r") as file,
    ):
        rows, target = RawRows(file["y"], view), np.empty(10, "f4")
        with pytest.raises(OSError, match="row 8 is not in the file"):
            rows.read_into(target, 0)
