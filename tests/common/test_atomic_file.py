import stat

import pytest

from kerasext.common.atomic_file import atomic_file, atomic_path, export_target


def test_it_has_its_name_when_it_is_whole(tmp_path):
    """Nothing has the name before the end, and the old file is replaced then."""
    path = tmp_path / "new"
    path.write_text("old")
    with atomic_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_errors_leave_nothing(tmp_path, error):
    """After an error there is what was there before."""

    def fail():
        with atomic_file(tmp_path / "new"):
            raise error

    with pytest.raises(error):
        fail()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("durable", [True, False])
def test_what_a_killed_process_has_left(tmp_path, durable):
    """A hidden file of a fixed name begins empty, and nothing is left beside the new file."""
    path, hidden = tmp_path / "new", tmp_path / ".new.part"
    hidden.write_text("left over")
    with atomic_path(path, hidden=hidden, durable=durable) as given:
        assert (given, given.read_text()) == (hidden, "")
        given.write_text("new")
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_is_read_only(tmp_path):
    """What replaces a file that nobody may write can be written, and is as read-only at the end."""
    path = tmp_path / "new"
    path.touch(0o444)
    with atomic_path(path) as hidden:
        assert stat.S_IMODE(hidden.stat().st_mode) == 0o644
        hidden.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_links_are_followed(tmp_path):
    """Through a link the file that it leads to is written."""
    source, real, link = tmp_path / "source", tmp_path / "real", tmp_path / "link"
    source.write_text("")
    real.write_text("old")
    link.symlink_to(real)
    with atomic_file(export_target(source, link)) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_refused(tmp_path):
    """A folder, a file in a folder that is not there, and the source are no targets."""
    source = tmp_path / "source"
    source.write_text("")
    with pytest.raises(IsADirectoryError, match="must not be a folder"):
        export_target(source, tmp_path)
    with pytest.raises(FileNotFoundError, match="make it first"):
        export_target(source, tmp_path / "missing/file")
    with pytest.raises(ValueError, match="must not be the file that is read"):
        export_target(source, source)
