"""What the package says of itself to installers and to the package index."""

import ast
import importlib.util
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Keras's backends, of which users install one, and what only looks for it.
UNDECLARED = {"jax", "torch"}


def imported_packages():
    """Names of all packages that kerasext imports anywhere, but for Python's own."""
    for path in (ROOT / "kerasext").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


def test_what_is_imported_is_declared():
    """Every package that kerasext imports is a requirement or an extra, under its own name."""
    extras = SETTINGS["optional-dependencies"]
    users = [extras[name] for name in extras if name not in {"test", "dev", "examples"}]
    requirements = [line for lines in [SETTINGS["dependencies"], *users] for line in lines]
    declared = {re.match(r"[\w.-]+", line)[0].lower().replace("-", "_") for line in requirements}
    distributions = packages_distributions()
    imported = set(imported_packages()) - sys.stdlib_module_names - {"kerasext"} - UNDECLARED
    missing = {
        name
        for name in imported
        if not {name.lower(), *map(str.lower, distributions.get(name, []))} & declared
    }
    assert not missing


def test_links_on_the_index():
    """With an address of the repository, no link of the README leads to a file beside it."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    text = setup.with_absolute_links((ROOT / "README.md").read_text(), "https://example.org/k")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert "https://example.org/k/blob/main/docs/limits.md" in links
    assert all(link.startswith("https://") for link in links)
