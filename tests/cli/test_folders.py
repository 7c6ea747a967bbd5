"""What `verify` and `info` say of a job in several files, and of its index."""

import json

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter

ROWS = 6


def write(path, ids, *, model="abc", finish=True):
    """Writes a file with some rows of a job."""
    writer = PredictionFileWriter(path, attributes={"model_fingerprint": model})
    writer.append({"labels": np.asarray(ids) * 10, "ids": np.asarray(ids)})
    (writer.finish if finish else writer.close)()


@pytest.fixture
def folder(tmp_path, kerasext):
    """Three complete files, and an index of them."""
    folder = tmp_path / "job"
    folder.mkdir()
    for number in range(3):
        write(folder / f"part-{number}.h5", range(number * ROWS, number * ROWS + ROWS))
    assert kerasext("index", folder)[0] == 0
    return folder


def test_whole(kerasext, folder):
    """A job that is whole is exit code 0 and a line, index or none."""
    line = f"{folder}: 18 rows of 3 files are as they were written\n"
    assert kerasext("verify", folder) == (0, line, "")
    code, _, err = kerasext("info", folder)
    assert (code, err) == (0, "")
    (folder / "index.h5").unlink()
    assert kerasext("verify", folder) == (0, line, "")


def test_a_virtual_file(kerasext, folder):
    """The file of virtual datasets is no shard: it has no rows, and nothing to verify."""
    assert kerasext("index", folder, "--virtual", "all.h5")[0] == 0
    line = f"{folder}: 18 rows of 3 files are as they were written\n"
    assert kerasext("verify", folder) == (0, line, "")
    code, out, err = kerasext("info", folder, "--json")
    assert (code, err) == (0, "")
    states = {state["name"]: (state["rows"], state["state"]) for state in json.loads(out)}
    assert states["all.h5"] == (None, "virtual")
    assert states["index.h5"] == (18, "index")
    write(folder / "x.h5", [90], model="other")
    assert "'x.h5' is of the model 'other'" in kerasext("info", folder)[2]


def remove(folder):
    """Takes a shard away."""
    (folder / "part-1.h5").unlink()


def make_unfinished(folder):
    """As if its process had been killed."""
    (folder / "part-1.h5").unlink()
    write(folder / "part-1.h5", range(ROWS, 2 * ROWS), finish=False)


def write_again(folder):
    """By another run."""
    (folder / "part-1.h5").unlink()
    write(folder / "part-1.h5", range(50, 50 + ROWS))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (remove, "'part-1.h5': it is missing"),
        (make_unfinished, "'part-1.h5': it has changed"),
        (write_again, "'part-1.h5': it has changed"),
    ],
)
def test_stale_index(change, reason, kerasext, folder):
    """An index names the file that is not what it was, with exit code 1, as if it was damaged."""
    change(folder)
    for command in ("verify", "info"):
        code, out, err = kerasext(command, folder / "index.h5")
        assert (code, out) == (1, "")
        assert reason in err
    code, out, _ = kerasext("info", folder, "--json")
    assert code == 1
    assert reason in out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (remove, "'part-1.h5': it is missing"),
        (make_unfinished, "'part-1.h5': it is unfinished, with 6 rows"),
        (write_again, "'part-1.h5': it has changed"),
        (
            lambda folder: (folder / "notes.txt").write_text("n"),
            "'notes.txt': The file must be HDF5",
        ),
        (lambda folder: (folder / "inner").mkdir(), "'inner': it is a folder"),
        (
            lambda folder: write(folder / "x.h5", [90], model="other"),
            "'x.h5' is of the model 'other'",
        ),
        (lambda folder: write(folder / "x.h5", [7]), "'part-1.h5' and 'x.h5' have the id 7"),
    ],
)
def test_folders_that_are_not_whole(change, reason, kerasext, folder):
    """`verify` of a folder names what is wrong, with exit code 1."""
    change(folder)
    code, out, err = kerasext("verify", folder)
    assert (code, out) == (1, "")
    assert reason in err


def test_damaged_rows(kerasext, folder):
    """So it does with rows that are not those that were written."""
    path = folder / "part-2.h5"
    with h5py.File(path) as file:
        info = file["ids"].id.get_chunk_info(0)
    changed = bytearray(path.read_bytes())
    changed[info.byte_offset + 4] ^= 1
    path.write_bytes(changed)
    code, _, err = kerasext("verify", folder)
    assert code == 1
    assert "part-2.h5" in err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_two_runs_in_one_folder(options, kerasext, folder):
    """`info` shows each file, and says that they are of two runs."""
    write(folder / "x.h5", [90], model="other")
    code, out, err = kerasext("info", folder, *options)
    assert code == 0
    assert "x.h5" in out
    assert "'x.h5' is of the model 'other', and 'part-0.h5' of 'abc'" in err


def test_states_in_a_folder(kerasext, folder):
    """`info` of a folder says of each file what it is, and exits with 1 only if one is damaged."""
    (folder / "notes.txt").write_text("n")
    assert kerasext("info", folder)[0] == 0
    make_unfinished(folder)
    code, out, err = kerasext("info", folder, "--json")
    assert (code, err) == (1, "")
    states = {state["name"]: state["state"] for state in json.loads(out)}
    assert states["part-0.h5"] == "complete"
    assert states["part-1.h5"] == "incomplete"
    assert "must be HDF5" in states["notes.txt"]
    assert "'part-1.h5': it has changed" in states["index.h5"]
