import importlib
import importlib.resources
import inspect
import re
import subprocess
import sys

import pytest

import kerasext

PACKAGES = [
    "kerasext",
    *(
        f"kerasext.{name}"
        for name in (
            *("models", "callbacks", "storage", "inference"),
            *("evaluation", "report", "shards", "ray", "cli"),
        )
    ),
]
HEAVY = {"keras", "tensorflow", "jax", "torch"}


def public_objects():
    """Everything that `__all__` names, with where it stands."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            yield pytest.param(getattr(module, name), id=f"{package}.{name}")


def is_written(function):
    """Whether it is a function of a file: those `dataclass` makes are documented by the fields."""
    made = "<string>"
    return inspect.isfunction(function) and inspect.unwrap(function).__code__.co_filename != made


def public_members():
    """The public functions, and of public classes the constructors, methods and properties."""
    seen = set()
    for parameter in public_objects():
        owner = parameter.values[0]
        if inspect.isfunction(owner) and owner not in seen:
            seen.add(owner)
            yield pytest.param(owner, id=owner.__qualname__)
        if not inspect.isclass(owner):
            continue
        for base in owner.__mro__:
            if not base.__module__.startswith("kerasext"):
                continue
            for name, member in vars(base).items():
                if isinstance(member, property):
                    function = member.fget
                elif isinstance(member, classmethod | staticmethod):
                    function = member.__func__
                else:
                    function = member
                public = not name.startswith("_") or re.fullmatch(r"__\w+__", name)
                if public and is_written(function) and function not in seen:
                    seen.add(function)
                    yield pytest.param(function, id=function.__qualname__)


def run_python(code):
    """The output of code in a fresh interpreter."""
    command = [sys.executable, "-W", "error", "-c", code]
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


@pytest.mark.parametrize("thing", list(public_objects()))
def test_public_objects_have_docstrings(thing):
    """Every public name is documented where it is defined."""
    if inspect.isclass(thing):
        assert "__doc__" in vars(thing)
    assert inspect.getdoc(thing)


@pytest.mark.parametrize("function", list(public_members()))
def test_public_methods_have_docstrings(function):
    """Every public method and property says what it does."""
    if not function.__name__.startswith("__"):
        assert function.__doc__


@pytest.mark.parametrize("function", list(public_members()))
def test_public_methods_are_typed(function):
    """Every public signature is typed throughout, so that a type checker sees the library."""
    signature = inspect.signature(function)
    for name, parameter in signature.parameters.items():
        assert name in ("self", "cls") or parameter.annotation is not inspect.Parameter.empty, name
    assert signature.return_annotation is not inspect.Signature.empty


def test_type_information_ships():
    """The marker that makes type checkers read the annotations is installed."""
    assert importlib.resources.files("kerasext").joinpath("py.typed").is_file()


@pytest.mark.parametrize(
    "statement",
    [
        "import kerasext",
        "import kerasext.storage",
        "import kerasext.evaluation",
        "import kerasext.report",
        "import kerasext.shards",
        "from kerasext import PredictionFile, shards, storage",
    ],
)
def test_reading_loads_no_backend(statement):
    """A machine that only reads files needs and loads neither Keras nor a backend."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    modules = run_python(code).split()
    assert "h5py" in modules
    assert not HEAVY & set(modules)


@pytest.mark.parametrize("package", ["models", "callbacks", "predict_to_hdf5"])
def test_keras_is_loaded_when_it_is_needed(package):
    """`import kerasext` is enough to use the packages that need Keras."""
    code = f"import kerasext, sys\nkerasext.{package}\nprint('keras' in sys.modules)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"


def test_unknown_attribute():
    """A name that does not exist is the usual AttributeError."""
    with pytest.raises(AttributeError, match="module 'kerasext' has no attribute 'modles'"):
        _ = kerasext.modles


def test_version():
    """The version is a release number, and that of the installed distribution."""
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?\w+)?", kerasext.__version__)
    assert importlib.import_module("importlib.metadata").version("kerasext") == kerasext.__version__
