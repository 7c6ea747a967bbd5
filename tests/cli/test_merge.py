import h5py
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.storage import PredictionFileWriter

IDS = np.array([7, 1, 5, 2, 9, 4])


@pytest.fixture
def folder(tmp_path):
    """Two complete files, whose ids are in no order."""
    folder = tmp_path / "job"
    folder.mkdir()
    for number, part in enumerate((slice(0, 4), slice(4, 6))):
        writer = PredictionFileWriter(folder / f"part-{number}.h5")
        writer.append({"labels": IDS[part] * 10, "ids": IDS[part]})
        writer.finish()
    return folder


@pytest.mark.parametrize("options", [[], ["--no-sort"]])
@pytest.mark.parametrize("command", ["merge", "index"])
def test_rows(command, options, kerasext, folder, tmp_path):
    """Both make one file of all rows, by id or file after file, and say how many."""
    out = tmp_path / "all.h5" if command == "merge" else folder / "index.h5"
    arguments = ["-o", out] if command == "merge" else []
    assert kerasext(command, folder, *arguments, *options) == (0, "", f"{out}: 6 rows\n")
    expected = IDS if options else np.sort(IDS)
    with PredictionFile(out) as predictions:
        np.testing.assert_array_equal(predictions["ids"], expected)
        np.testing.assert_array_equal(predictions["labels"], expected * 10)
    code, _, _ = kerasext("verify", out)
    assert code == 0


def test_virtual(kerasext, folder):
    """`index --virtual` makes a second file, for other tools."""
    out = folder / "by_id.h5"
    arguments = ["--name", out.name, "--virtual", "all.h5"]
    assert kerasext("index", folder, *arguments) == (0, "", f"{out}: 6 rows\n")
    with h5py.File(folder / "all.h5") as file:
        np.testing.assert_array_equal(file["labels"][:], np.sort(IDS) * 10)
    for command in ("info", "verify"):
        code, out, err = kerasext(command, folder / "all.h5")
        assert (code, out) == (2, "")
        assert "open the index 'by_id.h5' beside it" in err


def test_a_file_that_exists(kerasext, folder, tmp_path):
    """It is not replaced."""
    (tmp_path / "all.h5").write_bytes(b"mine")
    code, _, err = kerasext("merge", folder, "-o", tmp_path / "all.h5")
    assert code == 2
    assert "exists" in err
    assert (tmp_path / "all.h5").read_bytes() == b"mine"


@pytest.mark.parametrize("command", ["merge", "index"])
def test_foreign_files(command, kerasext, folder, tmp_path):
    """A file that is none is named, with exit code 2, and nothing is made."""
    (folder / "notes.txt").write_text("hello")
    arguments = ["-o", tmp_path / "all.h5"] if command == "merge" else []
    code, _, err = kerasext(command, folder, *arguments)
    assert code == 2
    assert "'notes.txt'" in err
    assert not (tmp_path / "all.h5").exists()
    assert not (folder / "index.h5").exists()


def test_an_index_of_files_that_changed(kerasext, folder):
    """Every command that reads an index names what is missing of it."""
    kerasext("index", folder)
    (folder / "part-1.h5").unlink()
    for command in ("verify", "info"):
        code, _, err = kerasext(command, folder / "index.h5")
        assert code == 1
        assert "'part-1.h5': it is missing" in err
