"""What `import kerasext` gives, and what it loads. Types and docstrings are checked by lint."""

import importlib
import importlib.resources
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kerasext

PACKAGES = [
    "kerasext",
    *(
        f"kerasext.{name}"
        for name in (
            *("models", "callbacks", "storage", "inference"),
            *("calibration", "evaluation", "report", "shards", "ray", "cli"),
        )
    ),
]


def run_python(code, *options):
    """The output of code in a fresh interpreter."""
    command = [sys.executable, *options, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_packages(package):
    """Each package says what it is for, and each public name of it exists once."""
    module = importlib.import_module(package)
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


def test_type_information_is_installed():
    """The marker that makes type checkers read the annotations is in the package."""
    assert importlib.resources.files("kerasext").joinpath("py.typed").is_file()


def test_reading_loads_no_backend():
    """A machine that only reads, evaluates or indexes files loads neither Keras nor a backend."""
    loaded = run_python(
        "import kerasext.calibration, kerasext.storage, kerasext.evaluation\n"
        "import kerasext.report, kerasext.shards\n"
        "from kerasext import PredictionFile, shards, storage\n"
        "import sys\n"
        "print(*{name.partition('.')[0] for name in sys.modules})",
        *("-W", "error"),
    ).split()
    assert "h5py" in loaded
    assert not {"keras", "tensorflow", "jax", "torch"} & set(loaded)


def test_keras_is_loaded_when_it_is_needed():
    """`import kerasext` is enough to use the packages and functions that need Keras."""
    code = (
        "import kerasext, sys\n"
        "print('keras' in sys.modules)\n"
        "kerasext.models.ClassifierModel, kerasext.callbacks.HDF5PredictionWriter\n"
        "print(callable(kerasext.predict_to_hdf5), 'keras' in sys.modules)"
    )
    assert run_python(code) == "False\nTrue True\n"


def test_dir_lists_the_public_names(monkeypatch):
    """`dir` lists what a user may use, and nothing else; all of it is there, `ray` if installed."""
    for name in dir(kerasext):
        assert getattr(kerasext, name) is not None
    monkeypatch.setitem(sys.modules, "ray", None)
    assert dir(kerasext) == sorted(kerasext.__all__)
    monkeypatch.setitem(sys.modules, "ray", importlib.import_module("importlib"))
    assert dir(kerasext) == sorted([*kerasext.__all__, "ray"])
    assert {"HDF5PredictionWriter", "load_model", "predict_to_hdf5", "shards"} <= {*dir(kerasext)}


def test_ray_is_an_attribute():
    """`kerasext.ray` needs no import of its own, if Ray is installed."""
    pytest.importorskip("ray")
    code = "import kerasext; print(kerasext.ray.HDF5Datasink.__name__)"
    assert run_python(code) == "HDF5Datasink\n"


TYPED = """
import kerasext
from kerasext import HDF5PredictionWriter

reveal_type(kerasext.predict_to_hdf5)
reveal_type(kerasext.ray.HDF5Datasink)
reveal_type(kerasext.shards.index_shards)
reveal_type(HDF5PredictionWriter)
kerasext.predict_to_hdf5(1, 2, "a.h5", nonsense=5)
kerasext.modles
"""


@pytest.mark.slow
def test_type_checkers_see_the_public_names(tmp_path):
    """A type checker knows the signature of each public name, and reports misspelt ones."""
    pytest.importorskip("mypy")
    (tmp_path / "typed.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml"]
    command += ["--cache-dir", str(tmp_path), str(tmp_path / "typed.py")]
    root = Path(__file__).parents[1]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    found = [line.partition("typed.py:")[2] for line in run.stdout.splitlines()]
    revealed = [line for line in found if "Revealed type" in line]
    assert len(revealed) == 4, run.stdout + run.stderr
    assert all('is "def (' in line for line in revealed)
    errors = [line.partition(": ")[0] for line in found if ": error:" in line]
    assert errors == ["9", "10"], run.stdout


def test_unknown_attribute():
    """A name that does not exist is the usual AttributeError."""
    with pytest.raises(AttributeError, match="module 'kerasext' has no attribute 'modles'"):
        _ = kerasext.modles


def test_version():
    """The version is a release number, and that of the installed distribution."""
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?\w+)?", kerasext.__version__)
    assert importlib.import_module("importlib.metadata").version("kerasext") == kerasext.__version__
