import contextlib

import h5py
import numpy as np
import pytest

from kerasext.cli.inputs import by_input, numbers_or_text, open_arrays, open_column
from kerasext.cli.messages import InputError


@pytest.fixture
def stack():
    """Closes what was opened."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def h5_path(tmp_path, rows):
    """A file with the rows as a dataset in a group, and names beside them."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["test/rows"] = rows
        file["names"] = [f"n{number}" for number in range(70)]
    return path


def test_npy_is_mapped(rows_path, rows, stack):
    """Of a .npy file nothing is read before it is sliced."""
    (array,) = open_arrays(str(rows_path), stack).values()
    assert isinstance(array, np.memmap)
    np.testing.assert_array_equal(array, rows)


def test_npz(tmp_path, rows, stack):
    """A .npz file gives its arrays by name."""
    np.savez(tmp_path / "data.npz", a=rows, b=rows[:, :2])
    arrays = open_arrays(str(tmp_path / "data.npz"), stack)
    assert list(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["b"], rows[:, :2])


def test_dataset(h5_path, rows, stack):
    """A dataset is named after a colon, and not read."""
    array = open_arrays(f"{h5_path}:/test/rows", stack)[""]
    assert isinstance(array, h5py.Dataset)
    np.testing.assert_array_equal(array, rows)


@pytest.mark.parametrize("suffix", ["", ":", ":/images", ":/test"])
def test_dataset_that_is_not_there(h5_path, stack, suffix):
    """The datasets that there are are listed."""
    with pytest.raises(InputError, match="/names, /test/rows"):
        open_arrays(f"{h5_path}{suffix}", stack)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5"])
def test_damaged_files(tmp_path, stack, name):
    """A file that is not what its suffix says is named."""
    for content in (b"", b"PK\3\4 something else"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}' can't be read"):
            open_arrays(str(tmp_path / name), stack)


def test_pickles_are_refused(tmp_path, stack):
    """No code is run that an array brings."""
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="can't be read"):
        open_arrays(str(tmp_path / "a.npy"), stack)


def test_other_suffix(tmp_path, stack):
    """Other files are refused with what can be read."""
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(InputError, match=r"\.npy or \.npz.*folder"):
        open_arrays(str(tmp_path / "a.txt"), stack)
    with pytest.raises(InputError, match="no file or folder"):
        open_arrays(str(tmp_path / "b.npy"), stack)


def test_columns(tmp_path, h5_path, rows, stack):
    """Columns come from lines of text, .npy files, datasets, and arrays beside the input."""
    names = [f"n{number}" for number in range(70)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    np.save(tmp_path / "names.npy", names)
    arrays = {"x": rows, "names": np.array(names)}
    source = f"{h5_path}:/test/rows"
    for text in (tmp_path / "names.txt", tmp_path / "names.npy", f"{h5_path}:/names", "/names"):
        column = open_column(str(text), {"": rows}, source, stack)
        assert [n.decode() if isinstance(n, bytes) else str(n) for n in column] == names
    assert open_column("names", arrays, str(tmp_path), stack)[3] == "n3"
    assert list(arrays) == ["x"]  # it is none of the inputs


def test_column_that_is_not_there(tmp_path, rows, stack):
    """The arrays that there are are listed."""
    with pytest.raises(InputError, match=r"no file 'name'.*\['x', 'y'\]"):
        open_column("name", {"x": rows, "y": rows}, str(tmp_path), stack)


def test_numbers_or_text():
    """Lines that are all numbers are numbers."""
    assert numbers_or_text(["1", "-2"]).tolist() == [1, -2]
    assert numbers_or_text(["1", "0.5"]).tolist() == [1, 0.5]
    assert numbers_or_text(["1", "cat"]).tolist() == ["1", "cat"]
    assert numbers_or_text(np.array([3], np.uint8)).dtype == np.uint8


def test_by_input(rows):
    """One array fits any single input; several must have the names of the inputs."""
    assert by_input({"x": rows}, ["input"]) is rows
    assert by_input({"x": rows}, None) is rows
    assert list(by_input({"a": rows, "b": rows}, ["b", "a"])) == ["a", "b"]
    with pytest.raises(InputError, match=r"arrays \['a', 'c'\], and inputs \['a', 'b'\]"):
        by_input({"a": rows, "c": rows}, ["a", "b"])
    with pytest.raises(InputError, match="no array"):
        by_input({}, None)
