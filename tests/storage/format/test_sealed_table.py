import h5py
import numpy as np
import pytest

from kerasext.storage.format.sealed_table import (
    CHECKSUM,
    read_table,
    read_texts,
    write_table,
    write_texts,
)

SIZE = 10_000
TABLE = np.arange(6).reshape(3, 2)


@pytest.fixture
def file(tmp_path):
    """An HDF5 file with a table of numbers and one of text."""
    with h5py.File(tmp_path / "tables.h5", "w") as file:
        write_table(file, "group/table", TABLE)
        write_texts(file, "texts", ["a", "größe"])
        yield file


def test_what_was_written(file):
    """Numbers and text come back as they were, also if there are none."""
    np.testing.assert_array_equal(read_table(file, "group/table", SIZE), TABLE, strict=True)
    assert read_texts(file, "texts", SIZE) == ["a", "größe"]
    write_table(file, "no rows", TABLE[:0])
    write_texts(file, "no texts", [])
    assert read_table(file, "no rows", SIZE).shape == (0, 2)
    assert read_texts(file, "no texts", SIZE) == []


@pytest.mark.parametrize("row", [0, 2])
def test_changed(row, file):
    """A table that differs from its checksum is none."""
    file["group/table"][row, 1] += 1
    with pytest.raises(ValueError, match="'group/table' is not what was written"):
        read_table(file, "group/table", SIZE)


@pytest.mark.parametrize("checksum", [None, 3, "text", np.zeros(2, "u4"), h5py.Empty("u4")])
def test_checksums_of_other_kinds(checksum, file):
    """A table without a checksum, or with something else for it, is none."""
    del file["texts"].attrs[CHECKSUM]
    if checksum is not None:
        file["texts"].attrs[CHECKSUM] = checksum
    with pytest.raises(ValueError, match=r"has no checksum|not what was written|ambiguous"):
        read_table(file, "texts", SIZE)


def put(file, kind):
    """Puts something else into the place of a table."""
    del file["texts"]
    if kind == "group":
        file.create_group("texts")
    elif kind == "link":
        file["texts"] = h5py.ExternalLink("other.h5", "texts")
    elif kind == "chunked":
        file.create_dataset("texts", data=np.array([b"a"]), chunks=(1,))
    elif kind == "external":
        file.create_dataset("texts", (9,), "S1", external=[("other.h5", 0, 9)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout((9,), "S1")
        layout[:] = h5py.VirtualSource("other.h5", "texts", (9,))
        file.create_virtual_dataset("texts", layout)
    elif kind == "text of any length":
        file.create_dataset("texts", data=["a"], dtype=h5py.string_dtype())
    elif kind == "floats":
        file.create_dataset("texts", data=np.zeros(3))
    elif kind == "nothing":
        file.create_dataset("texts", data=h5py.Empty("S1"))
    elif kind == "huge":  # HDF5 makes room for it when something is written
        file.create_dataset("texts", (2**40,), "S1", fillvalue=None)


@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "group", "link", "chunked", "external", "virtual", "text of any length"),
        *("floats", "nothing", "huge"),
    ],
)
def test_what_is_no_table(kind, file):
    """Only a plain dataset in the file itself, not larger than that, is read."""
    put(file, kind)
    with pytest.raises(ValueError, match="'texts'"):
        read_table(file, "texts", SIZE)


def test_texts_that_are_none(file):
    """A list of text is neither a table of numbers, nor of two axes, nor of other bytes."""
    with pytest.raises(ValueError, match="must be a list of text"):
        read_texts(file, "group/table", SIZE)
    write_table(file, "two axes", np.array([[b"a"]]))
    with pytest.raises(ValueError, match="must be a list of text"):
        read_texts(file, "two axes", SIZE)
    write_table(file, "bytes", np.array([b"\xff\xfe"]))
    with pytest.raises(ValueError, match="utf-8"):
        read_texts(file, "bytes", SIZE)
