"""Imports go down only, and through the door of a package: its `__init__.py`."""

import ast
import re
from pathlib import Path

import pytest

import kerasext

ROOT = Path(kerasext.__file__).parent

LAYERS = [
    {"cli"},
    {"report", "ray"},
    {"inference"},
    {"callbacks"},
    {"models"},
    {"evaluation", "shards"},
    {"storage"},
    {"calibration"},
    {"keras_internals"},
    {"common"},
]
"""The packages from the top down. Those of one layer do not know each other."""

FLOORS_OF_STORAGE = [
    {"prediction_file"},
    {"exports"},
    {"index"},
    {"writing"},
    {"reading"},
    {"columns"},
    {"format"},
]
"""The folders of `kerasext.storage` from the top down."""

WITHOUT_KERAS = {"storage", "evaluation", "shards", "calibration", "common"}


def imports(path):
    """The modules that a file imports names from, each with those names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module, {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, set()


def files(folder):
    """The Python files below a folder."""
    return sorted(folder.rglob("*.py"))


def floor_of(name, floors):
    """The number of the floor that a package stands on, from the top."""
    return next((number for number, names in enumerate(floors) if name in names), None)


def package_of(path):
    """The package of a file below `kerasext/`, `""` for one at the top."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


def names_at_the_door(package):
    """What the `__init__.py` of a package imports or defines."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_every_package_has_a_layer():
    """A new package gets its place here."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set().union(*LAYERS)


@pytest.mark.parametrize("package", sorted(set().union(*LAYERS)))
def test_imports_go_down(package):
    """A package imports those of lower layers only."""
    own = floor_of(package, LAYERS)
    for path in files(ROOT / package):
        for module, _ in imports(path):
            other = f"{module}.".split(".")[1] if module.startswith("kerasext.") else package
            layer = floor_of(other, LAYERS)
            assert other == package or layer is None or layer > own, f"{path} imports {module}"


@pytest.mark.parametrize("folder", ["kerasext", "benchmarks", "examples"])
def test_imports_through_the_door(folder):
    """Names of another package come from its `__init__.py`, and stand in it."""
    doors = {
        path.parent.name: names_at_the_door(path.parent.name) for path in ROOT.glob("*/__init__.py")
    }
    for path in files(ROOT.parent / folder):
        own = package_of(path) if folder == "kerasext" else ""
        for module, names in imports(path):
            root, _, rest = module.partition(".")
            package, _, inner = rest.partition(".")
            if root != "kerasext" or package not in doors or package == own:
                continue
            assert not inner, f"{path} imports {module} past the door of {package!r}"
            assert names <= doors[package], (
                f"{path} imports {names - doors[package]} of {package!r}"
            )


def test_imports_within_storage_go_down():
    """A folder of storage imports those below it only; what is written may read to resume."""
    storage = ROOT / "storage"
    for path in files(storage):
        own = path.relative_to(storage).parts[0].removesuffix(".py")
        for module, _ in imports(path):
            if own == "__init__" or not module.startswith("kerasext.storage."):
                continue
            other = module.split(".")[2]
            down = floor_of(other, FLOORS_OF_STORAGE) >= floor_of(own, FLOORS_OF_STORAGE)
            assert down, f"{path} imports {module}"


@pytest.mark.parametrize("package", sorted(WITHOUT_KERAS))
def test_without_keras(package):
    """What reads, evaluates and indexes files never imports Keras or a backend."""
    for path in files(ROOT / package):
        for module, _ in imports(path):
            root = module.split(".")[0]
            is_typing_only = path.name in {"tf_dataset.py", "prediction_file.py"}
            assert root not in {"keras", "jax", "torch"}, f"{path} imports {module}"
            assert not module.startswith("kerasext.keras_internals"), f"{path} imports {module}"
            assert root != "tensorflow" or is_typing_only, f"{path} imports {module}"


def test_the_page_for_successors_names_files_that_exist():
    """Every path on the page on the architecture leads to something, and no package is missing."""
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    paths = re.findall(r"`(kerasext/[\w/]+(?:\.py)?|\w+/|\w+\.py)`", page)
    folders = [ROOT.parent, ROOT / "storage", *(path for path in (ROOT / "storage").iterdir())]
    for path in paths:
        assert any((folder / path).exists() for folder in folders), path
    assert {f"kerasext/{package}/" for package in set().union(*LAYERS)} <= set(paths)
