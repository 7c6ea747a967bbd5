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


def external_link(file, other):
    """A link to a dataset of another file."""
    file["x"] = h5py.ExternalLink(other, "/test/rows")


def link_to_group(file, other):
    """A group of another file."""
    file["outside"] = h5py.ExternalLink(other, "/test")
    file["x"] = h5py.SoftLink("/outside/rows")


def virtual(file, other):
    """A virtual dataset over another file."""
    layout = h5py.VirtualLayout((70, 8), "f4")
    layout[:] = h5py.VirtualSource(other, "/test/rows", shape=(70, 8))
    file.create_virtual_dataset("x", layout)


def external_storage(file, other):
    """A dataset whose bytes are in another file."""
    file.create_dataset("x", (70, 8), "f4", external=[(other, 0, 2240)])


@pytest.mark.parametrize("make", [external_link, link_to_group, virtual, external_storage])
def test_nothing_is_read_from_other_files(tmp_path, h5_path, rows, stack, make):
    """A dataset that is in another file is refused, as input and as a column beside it."""
    with h5py.File(tmp_path / "forged.h5", "w") as file:
        file["own"] = rows
        make(file, str(h5_path))
    for read in (
        lambda: open_arrays(f"{tmp_path}/forged.h5:/x", stack),
        lambda: open_column(f"{tmp_path}/forged.h5:x", {}, str(tmp_path), stack),
        lambda: open_column("/x", {"": rows}, f"{tmp_path}/forged.h5:/own", stack),
    ):
        with pytest.raises(InputError, match="in its own HDF5 file"):
            read()


def test_links_within_a_file(tmp_path, rows, stack):
    """Soft links within the file are followed, also relative ones; circles have no end."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data/rows"] = rows
        file["data/latest"] = h5py.SoftLink("rows")
        file["current"] = h5py.SoftLink("/data")
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    array = open_arrays(f"{tmp_path}/a.h5:/current/latest", stack)[""]
    np.testing.assert_array_equal(array, rows)
    for name in ("/a", "/data/rows/x", "/data"):
        with pytest.raises(InputError, match="there is no dataset"):
            open_arrays(f"{tmp_path}/a.h5:{name}", stack)


@pytest.mark.parametrize("kind", ["U", "S"])
def test_text_of_fixed_width(tmp_path, stack, kind):
    """Arrays of text are handed over as they are; what needs pickle names a form that does not."""
    texts = np.array(["one", "größe".encode() if kind == "S" else "größe"], kind)
    np.save(tmp_path / "a.npy", texts)
    np.savez(tmp_path / "a.npz", words=texts)
    for name, key in (("a.npy", ""), ("a.npz", "words")):
        (array,) = (open_arrays(str(tmp_path / name), stack)[key],)
        assert array.dtype == texts.dtype
        assert array.tolist() == texts.tolist()
    words = np.array(["one", "two"], object)
    for save in (np.save, np.savez):
        path = tmp_path / ("b.npy" if save is np.save else "b.npz")
        save(path, words)
        with pytest.raises(InputError, match=r"array\.astype\(str\)"):
            open_arrays(str(path), stack)
        save(path, words.astype(str))
        assert len(next(iter(open_arrays(str(path), stack).values()))) == 2


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


def test_a_folder_in_place_of_a_column(tmp_path, rows, stack):
    """A folder of images has no targets; the error says what can be given."""
    with pytest.raises(InputError, match="text with one a line"):
        open_column(str(tmp_path), {"": rows}, str(tmp_path), stack)


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
