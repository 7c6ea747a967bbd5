"""Packages that only some methods need, loaded at the first call of one of them."""

import importlib
from typing import Any

_INSTALL = {"PIL": "pillow"}  # distributions whose name is not that of their module


def optional_package(name: str, *, needed_by: str) -> Any:
    """Imports a module of an optional package.

    Args:
        name: String. The module, such as `"pyarrow.parquet"`.
        needed_by: String. What needs it, for the error.

    Raises:
        ImportError: If the package is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"{needed_by} needs {package}; pip install {_INSTALL.get(package, package)}"
        ) from error
