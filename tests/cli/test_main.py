import os
import subprocess
import sys

import numpy as np
import pytest

import kerasext as library
from kerasext.cli import info
from kerasext.storage import PredictionFileWriter

COMMANDS = ["predict", "info", "export", "verify", "report", "index", "merge"]


def python(*arguments):
    """Runs a fresh interpreter."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def file(path):
    """A small prediction file."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.arange(5, dtype="i4")})
    writer.finish()
    return path


def test_help(kerasext):
    """The help names every command, and that of each has an example and its options."""
    code, out, _ = kerasext("--help")
    assert code == 0
    assert all(f"\n    {command}" in out for command in COMMANDS)
    for command in COMMANDS:
        code, out, _ = kerasext(command, "--help")
        assert code == 0
        assert f"example:\n  kerasext {command} " in out
        assert "--debug" in out
        assert max(map(len, out.splitlines())) <= 100


def test_version(kerasext):
    """The version is that of the library."""
    assert kerasext("--version") == (0, f"kerasext {library.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["preditc"],
        ["predict", "a.keras", "b.npy"],
        ["predict", "a.keras", "b.npy", "-o", "c.h5", "--resume", "--overwrite"],
        ["predict", "a.keras", "b.npy", "-o", "c.h5", "--batch-size", "0"],
        ["predict", "a.keras", "b.npy", "-o", "c.h5", "--batch-size", "many"],
        ["predict", "a.keras", "b", "-o", "c.h5", "--image-size", "0x3"],
        ["predict", "a.keras", "b", "-o", "c.h5", "--class-names", "missing.txt"],
        ["predict", "a.keras", "b", "-o", "c.h5", "--class-names", "a,,b"],
        ["export", "a.h5"],
    ],
)
def test_wrong_arguments(kerasext, arguments):
    """Arguments that make no sense are exit code 2 and a line on stderr."""
    code, out, err = kerasext(*arguments)
    assert (code, out) == (2, "")
    assert "error: " in err


@pytest.mark.parametrize("command", ["info", "verify"])
def test_no_file(kerasext, tmp_path, command):
    """A file that is not there is exit code 2, one line, and with --debug the traceback too."""
    code, out, err = kerasext(command, tmp_path / "missing.h5")
    assert (code, out) == (2, "")
    assert err.startswith(f"kerasext {command}: error: ")
    assert "missing.h5" in err
    assert err.count("\n") == 1
    code, _, err = kerasext(command, tmp_path / "missing.h5", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_failures_are_no_bad_input(kerasext, file, monkeypatch):
    """What fails for another reason is exit code 1, with the type of the error."""

    def fail(*_):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(info, "_page", fail)
    expected = "kerasext info: error: RuntimeError: the device is gone\n"
    assert kerasext("info", file) == (1, "", expected)


def test_messages_of_the_library_name_options(kerasext, file, tmp_path):
    """An argument of the library is called by the option that stands for it."""
    code, _, err = kerasext("export", file, tmp_path / "a.npz", "--outputs", "label")
    assert code == 2
    assert "--outputs" in err
    code, _, err = kerasext("report", file, "-o", file, "--overwrite")
    assert code == 2
    assert "OUT must not be the file that is read" in err
    assert "`" not in err


def test_files_with_names_of_any_bytes(kerasext, file, tmp_path):
    """Commands show a file whose name is not UTF-8, also on stdout, and find it."""
    name = os.fsencode(tmp_path) + b"/caf\xe9.h5"
    try:
        os.rename(file, name)  # noqa: PTH104 - bytes are no path
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    found = os.fsdecode(name)
    code, out, _ = kerasext("verify", found)
    assert code == 0
    assert "caf\\xe9.h5: 5 rows are as they were written" in out
    for options in ([], ["--json"]):
        for path in (found, tmp_path):
            code, out, _ = kerasext("info", path, *options)
            assert code == 0
            assert "caf" in out
    code, _, err = kerasext("export", found, tmp_path / "a.npz")
    assert code == 0, err


def test_as_a_module(file):
    """`python -m kerasext` is the same, and its exit code that of the command."""
    assert python("-m", "kerasext", "verify", file).returncode == 0
    assert python("-m", "kerasext", "verify", file.with_name("no.h5")).returncode == 2


def test_commands_that_read_load_no_keras(file):
    """Info, export and verify are fast, and need no Keras."""
    code = (
        "import sys; from kerasext.cli import main\n"
        "for arguments in (['info'], ['verify'], ['export', sys.argv[2]]):\n"
        "    assert main([arguments[0], sys.argv[1], *arguments[1:]]) == 0\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'keras', 'tensorflow', 'jax', 'torch', 'PIL'}, loaded"
    )
    run = python("-W", "error", "-c", code, file, file.with_suffix(".npz"))
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell's pipes")
def test_reader_that_has_seen_enough(file):
    """A pipe that is closed, as by `head`, is no error to speak of."""
    program = f"{sys.executable} -m kerasext info {file} --json | true"
    command = ["/bin/sh", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stderr == ""
