"""The exit codes of all commands: 1 for what is damaged or fails, 2 for what can't be used."""

import resource
import shutil
import sys

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter

# The arguments of each command after the file or folder that it reads.
COMMANDS = {
    "info": [],
    "verify": [],
    "export": ["{tmp}/out.npz"],
    "report": ["-o", "{tmp}/out.html"],
    "index": [],
    "merge": ["-o", "{tmp}/out.h5"],
}
OF_FOLDERS = ("index", "merge")
WRITING = ("export", "report", "index", "merge")


@pytest.fixture
def folder(tmp_path):
    """A folder with a complete prediction file."""
    (tmp_path / "job").mkdir()
    write(tmp_path / "job/part.h5")
    return tmp_path / "job"


def write(path):
    """Writes a prediction file of 500 rows."""
    random = np.random.default_rng(0)
    writer = PredictionFileWriter(path, mode="w")
    labels = random.integers(0, 3, 500).astype("i4")
    writer.append({"labels": labels, "confidence": random.random(500, "f4")})
    writer.finish()
    writer.close()


@pytest.fixture
def run(kerasext, folder, tmp_path):
    """Runs a command on the file in the folder, or on the folder."""

    def run(command):
        source = folder if command in OF_FOLDERS else folder / "part.h5"
        arguments = [text.format(tmp=tmp_path) for text in COMMANDS[command]]
        return kerasext(command, source, *arguments)

    return run


def cut(path):
    """Cuts the end off."""
    path.write_bytes(path.read_bytes()[:-1000])


def overwrite_structure(path):
    """Writes over the metadata of an output."""
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file["labels"].id).addr
    content = bytearray(path.read_bytes())
    content[address : address + 64] = b"\xff" * 64
    path.write_bytes(content)


def write_text(path):
    """Writes text instead."""
    path.write_text("no HDF5")


def write_plain_hdf5(path):
    """Writes an HDF5 file of another program instead."""
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [(cut, 1), (overwrite_structure, 1), (write_text, 2), (write_plain_hdf5, 2)],
)
def test_what_is_read(run, folder, command, change, expected):
    """A damaged prediction file is exit code 1 of every command, a file of another kind 2."""
    assert run(command)[0] == 0
    shutil.rmtree(folder)
    folder.mkdir()
    write(folder / "part.h5")
    for made in folder.parent.glob("out.*"):
        made.unlink()
    change(folder / "part.h5")
    code, out, err = run(command)
    assert (code, out) == (expected, ""), err
    assert "part.h5" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_file(run, folder, command):
    """What is not there is exit code 2."""
    shutil.rmtree(folder)
    code, out, err = run(command)
    assert (code, out) == (2, "")
    assert str(folder) in err


@pytest.fixture
def full_disk():
    """Lets no file grow beyond 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("command", WRITING)
def test_full_disk(run, full_disk, tmp_path, command):
    """A disk that takes no more is exit code 1, and leaves nothing behind."""
    if command == "report":  # its font cache is not to be cut
        pytest.importorskip("matplotlib.font_manager")
    before = sorted(tmp_path.rglob("*"))
    full_disk()
    code, out, err = run(command)
    assert (code, out) == (1, ""), err
    assert f"kerasext {command}: error: " in err
    assert sorted(tmp_path.rglob("*")) == before


def test_full_disk_of_predict(kerasext, model_path, rows_path, path, full_disk):
    """So it is of `predict`."""
    kerasext("predict", model_path, rows_path, "-o", path, "--batch-size", 16)
    full_disk()
    code, out, _ = kerasext("predict", model_path, rows_path, "-o", path, "--overwrite")
    assert (code, out) == (1, "")


def test_damaged_file_to_resume(kerasext, model_path, rows_path, path):
    """A damaged file that `predict` is to go on with is exit code 1, one of another kind 2."""
    command = ["predict", model_path, rows_path, "-o", path, "--batch-size", 16]
    kerasext(*command)
    for change, expected in ((cut, 1), (write_text, 2)):
        change(path)
        code, out, err = kerasext(*command, "--resume")
        assert (code, out) == (expected, ""), err


BROKEN = """
import keras


class Broken(keras.layers.Layer):
    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x):
        raise {error}("the model is broken")
"""


@pytest.mark.parametrize("error", ["ValueError", "TypeError", "OSError", "ZeroDivisionError"])
def test_error_of_the_model(kerasext, keras_server, rows_path, path, tmp_path, monkeypatch, error):
    """An error of the model's own code is exit code 1, whatever its type."""
    name = f"broken_{error.lower()}"
    (tmp_path / f"{name}.py").write_text(BROKEN.format(error=error))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    save = (
        f"import keras, {name} as module\n"
        "keras.Sequential([keras.Input((8,)), module.Broken()]).save('broken.keras')"
    )
    assert keras_server.run(f"import sys; sys.path.insert(0, '')\n{save}", cwd=tmp_path).status == 0
    code, out, err = kerasext("predict", "broken.keras", rows_path, "-o", path, "--import", name)
    assert (code, out) == (1, "")
    assert "the model is broken" in err
