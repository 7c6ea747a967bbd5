import pytest

from kerasext.common.atomic_file import file_made_from, renamed_when_written


def test_it_has_its_name_when_it_is_whole(tmp_path):
    """Nothing has the name before the end, and the old file is replaced then."""
    path = tmp_path / "new"
    path.write_text("old")
    with renamed_when_written(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_errors_leave_nothing(tmp_path, error):
    """After an error there is what was there before."""

    def fail():
        with renamed_when_written(tmp_path / "new"):
            raise error

    with pytest.raises(error):
        fail()
    assert not [*tmp_path.iterdir()]


def test_links_are_followed(tmp_path):
    """Through a link the file that it leads to is written."""
    source, real, link = tmp_path / "source", tmp_path / "real", tmp_path / "link"
    source.write_text("")
    real.write_text("old")
    link.symlink_to(real)
    with renamed_when_written(file_made_from(source, link)) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_refused(tmp_path):
    """A folder, a file in a folder that is not there, and the source are no targets."""
    source = tmp_path / "source"
    source.write_text("")
    with pytest.raises(IsADirectoryError, match="must not be a folder"):
        file_made_from(source, tmp_path)
    with pytest.raises(FileNotFoundError, match="make it first"):
        file_made_from(source, tmp_path / "missing/file")
    with pytest.raises(ValueError, match="must not be the file that is read"):
        file_made_from(source, source)
