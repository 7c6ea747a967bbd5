import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from two_outputs import check_rows, make_step, make_steps, read, run_python, write

from kerasext.storage import PredictionFile, PredictionFileWriter


@pytest.fixture
def public_folder():
    """A folder that every user can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "sizes", [[23, 23, 23, 1], [1], [0, 5], [5, 0, 0, 2], [1] * 300, [20_000, 1], [7, 50_000, 7]]
)
@pytest.mark.parametrize("expected_rows", [None, 1, 100, 10**6])
def test_outputs_advance_together(path, sizes, expected_rows):
    """Steps of any size, without rows too, end up as whole rows of every output."""
    write(path, make_steps(sizes), expected_rows=expected_rows)
    check_rows(path, sum(sizes))


def test_no_rows(path):
    """A file without rows is complete and keeps the outputs' shapes and dtypes."""
    write(path, [make_step(0, 0)])
    check_rows(path, 0)


@pytest.mark.parametrize("row_shape", [(0,), (3, 0), (0, 2)])
def test_rows_of_width_zero(path, row_shape):
    """An output whose rows are empty is kept beside the others."""
    write(path, [{"x": np.zeros((n, *row_shape), "f4"), "b": np.arange(n)} for n in (4, 3)])
    outputs, _ = read(path)
    assert outputs["x"].shape == (7, *row_shape)
    assert outputs["b"].tolist() == [0, 1, 2, 3, 0, 1, 2]


def test_arrays_may_be_used_again(path):
    """Rows are kept as they were on `append`, whatever the caller does to the array later."""
    step = make_step(0, 40_000)
    writer = PredictionFileWriter(path)
    for first in (0, 40_000, 80_000):
        for name, array in make_step(first, 40_000).items():
            step[name][:] = array
        writer.append(step)
    step["a"][:] = step["b"][:] = 0
    writer.finish()
    check_rows(path, 120_000)


def test_new_file_must_be_new(path):
    """Under "x" a present file is refused at once, with the other modes, and stays."""
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"mode='resume'.*mode='a'.*mode='w'"):
        PredictionFileWriter(path)
    assert path.read_bytes() == b"mine"
    assert list(path.parent.iterdir()) == [path]


def test_file_that_appears_meanwhile(path):
    """Under "x" a file that another program made after the start is not replaced."""
    writer = PredictionFileWriter(path)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        writer.append(make_step(0, 3))
    writer.close()
    assert path.read_bytes() == b"mine"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_modes_make_a_file(path, mode):
    """Every mode makes a missing file, but not before the first step."""
    writer = PredictionFileWriter(path, mode=mode)
    assert not path.exists()
    writer.append(make_step(0, 5))
    assert path.exists()
    writer.finish()
    check_rows(path, 5)


@pytest.mark.parametrize("mode", ["r", "r+", "", None])
def test_unknown_modes(path, mode):
    """An unknown mode is refused with the known ones."""
    with pytest.raises(ValueError, match=re.escape("('x', 'w', 'a', 'resume')")):
        PredictionFileWriter(path, mode=mode)


@pytest.mark.parametrize("old", ["a prediction file", "no HDF5"])
def test_replacing(path, old):
    """Under "w" the old file stays as it is until the first step, and then it is gone."""
    write(path, [{"old": np.zeros(9)}])
    if old == "no HDF5":
        path.write_bytes(b"mine")
    before = path.read_bytes()
    writer = PredictionFileWriter(path, mode="w")
    assert path.read_bytes() == before
    writer.append(make_step(0, 4))
    writer.finish()
    check_rows(path, 4)


def test_replacing_under_a_reader(path):
    """Who has the old file open goes on reading the old rows."""
    write(path, [make_step(0, 70)])
    with PredictionFile(path) as old:
        write(path, [make_step(0, 4)], mode="w")
        assert old["b"][:].tolist() == list(range(70))
    check_rows(path, 4)


@pytest.mark.parametrize("mode", ["x", "w", "a"])
@pytest.mark.parametrize("end", [PredictionFileWriter.finish, PredictionFileWriter.close])
def test_no_step_at_all(path, mode, end):
    """Without a step nothing is made and nothing is changed."""
    writer = PredictionFileWriter(path, mode=mode)
    end(writer)
    assert list(path.parent.iterdir()) == []
    if mode != "x":
        write(path, [make_step(0, 4)])
        before = path.read_bytes()
        end(PredictionFileWriter(path, mode=mode))
        assert path.read_bytes() == before


def test_close_without_finish(path):
    """A file that was only closed has all its rows and says that it is incomplete."""
    writer = PredictionFileWriter(path)
    for step in make_steps([5, 40_000, 2]):
        writer.append(step)
    writer.close()
    check_rows(path, 40_007, complete=False)


@pytest.mark.parametrize("end", [PredictionFileWriter.finish, PredictionFileWriter.close])
@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_nothing_after_the_end(path, end, mode):
    """Ending again changes nothing, and rows that come too late are refused, not written."""
    writer = PredictionFileWriter(path, mode=mode)
    writer.append(make_step(0, 5))
    end(writer)
    before = path.read_bytes()
    writer.close()
    writer.finish()
    with pytest.raises(ValueError, match=r"closed|ended|finished"):
        writer.append(make_step(5, 3))
    writer.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_paths_that_can_not_be(tmp_path, mode):
    """A missing folder and a folder in place of the file are refused at once."""
    with pytest.raises(FileNotFoundError, match="folder of `path` must exist"):
        PredictionFileWriter(tmp_path / "missing" / "a.h5", mode=mode)
    with pytest.raises(IsADirectoryError, match="must be a file"):
        PredictionFileWriter(tmp_path, mode=mode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [str, Path, os.path.relpath])
def test_paths_of_any_kind(path, kind):
    """A path may be a string, a path object or relative."""
    write(kind(path), [make_step(0, 3)])
    check_rows(path, 3)


def test_relative_path_is_that_of_the_start(path, tmp_path_factory, monkeypatch):
    """Changing the working folder meanwhile doesn't move the file."""
    monkeypatch.chdir(path.parent)
    writer = PredictionFileWriter(path.name)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    writer.append(make_step(0, 3))
    writer.finish()
    check_rows(path, 3)


def test_through_a_link(path, tmp_path_factory):
    """Writing through a link writes the file that it leads to, and the link stays one."""
    link = tmp_path_factory.mktemp("links") / "link.h5"
    link.symlink_to(path)
    for mode, first, rows in [("x", 0, 3), ("a", 3, 5), ("w", 0, 2)]:
        write(link, [make_step(first, rows - first)], mode=mode)
        assert link.is_symlink()
        check_rows(path, rows)


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_folder_that_is_not_writable(public_folder, mode):
    """A folder or file that can't be written raises an error at once."""
    code = """
if os.getuid() == 0:
    os.setuid(65534)
try:
    PredictionFileWriter(path, mode=sys.argv[2])
except PermissionError as error:
    print(error)
"""
    public_folder.chmod(0o555)
    output = run_python(code, public_folder / "a.h5", mode)
    assert "folder of `path` must be writable" in output
    assert list(public_folder.iterdir()) == []


def test_file_that_is_not_writable(public_folder):
    """Under "a" a file without permission to write is refused at once and stays."""
    code = """
if os.getuid() == 0:
    os.setuid(65534)
try:
    PredictionFileWriter(path, mode="a")
except PermissionError as error:
    print(error)
"""
    path = public_folder / "a.h5"
    write(path, [make_step(0, 5)])
    path.chmod(0o444)
    public_folder.chmod(0o777)
    assert "must be writable" in run_python(code, path)
    check_rows(path, 5)
