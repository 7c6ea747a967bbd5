"""Arrays that files have: .npy, .npz, and datasets of HDF5 as `file.h5:/images`."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasext.cli.messages import InputError, printable
from kerasext.cli.options import lines

_MOST_LISTED = 20
_MOST_LINKS = 16  # that lead from one to the next, as in HDF5
_HDF5 = (".h5", ".hdf5", ".he5", ".hdf")


class _NoDatasetError(InputError):
    """An HDF5 file has no such dataset."""


def split_path(text: str) -> tuple[Path, str]:
    """The file or folder that is meant, and what stands after a colon.

    Raises:
        InputError: If there is no such file.
    """
    path = Path(text)
    if path.exists():
        return path, ""
    before, _, name = text.rpartition(":")
    if before and Path(before).is_file():
        return Path(before), name
    raise InputError(f"There is no file or folder {before or text!r}.")


def open_arrays(text: str, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Opens the arrays that are meant, read as far as the format allows when they are sliced.

    Args:
        text: String. A path, or that of an HDF5 file with a colon and the name of a dataset.
        stack: Stack by which files are closed.

    Returns:
        Dict from name to array; the name of a single one of .npy or HDF5 is `""`.

    Raises:
        InputError: If there is no such file or dataset, or it can't be read.
    """
    path, name = split_path(text)
    if path.is_dir():
        raise InputError(f"{text!r} is a folder, where a file with an array is needed.")
    try:
        if path.suffix == ".npy":
            return {"": np.lib.format.open_memmap(path, mode="r")}
        if path.suffix == ".npz":
            # NumPy leaves a file open that is no archive, if it has opened it.
            with path.open("rb") as opened:
                return dict(np.load(opened, allow_pickle=False))
        if name or path.suffix in _HDF5:
            file = stack.enter_context(h5py.File(path, "r"))
            return {"": _dataset(file, name)}
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        has_objects = path.suffix in (".npy", ".npz") and "object" in str(error).lower()
        remedy = "; save text as array.astype(str)" if has_objects else ""
        raise InputError(f"{str(path)!r} can't be read: {error}{remedy}") from error
    raise InputError(
        "The input must be a .npy or .npz file, a dataset as file.h5:/images, or a folder of "
        f"images. Received: {text!r}"
    )


def open_column(text: str, arrays: dict[str, Any], source: str, stack: contextlib.ExitStack) -> Any:
    """Opens what stands beside the rows, such as ids.

    Args:
        text: String. The name of an array of `arrays`, which is taken out of them; of a dataset in
            the HDF5 file that `source` names; or a file: a text file with a line for each row, or
            as `open_arrays` takes it.
        arrays: Dict of the arrays that are to be predicted.
        source: String. What they are read from.
        stack: Stack by which files are closed.

    Returns:
        Array, or list of strings, with an entry for each row.

    Raises:
        InputError: If there is none.
    """
    if text in arrays:
        return arrays.pop(text)
    path, name = split_path(source)
    if name and not Path(text).exists() and ":" not in text:
        with contextlib.suppress(_NoDatasetError):
            return open_arrays(f"{path}:{text}", stack)[""][:]
    try:
        file, name = split_path(text)
    except InputError as error:
        has = f", and {source!r} has the arrays {sorted(arrays)}" if any(arrays) else ""
        raise InputError(f"There is no file {text!r}{has}.") from error
    if file.is_dir():
        raise InputError(
            "Ids and targets must be in a file: text with one a line, .npy, .npz, or "
            f"file.h5:/labels. Received: the folder {text!r}"
        )
    if not name and file.suffix not in (".npy", ".npz", *_HDF5):
        return lines(file)
    found = open_arrays(text, stack)
    if len(found) != 1:
        raise InputError(f"{text!r} must have one array. Received: arrays {sorted(found)}")
    return next(iter(found.values()))[:]


def numbers_or_text(values: Any) -> np.ndarray:
    """A column as numbers, if lines of text are all such."""
    array = np.asarray(values)
    for dtype in (np.int64, np.float64) if array.dtype.kind == "U" else ():
        with contextlib.suppress(ValueError, OverflowError):
            return array.astype(dtype)
    return array


def by_input(arrays: Mapping[str, Any], names: list[str] | None) -> Any:
    """Arrays as a model takes them.

    Args:
        arrays: Dict from name to array.
        names: List of the names of the model's inputs, `None` where they are not known.

    Returns:
        The array if there is one and the model has no other input, else a dict.

    Raises:
        InputError: If the names are not those of the model's inputs.
    """
    if not arrays:
        raise InputError("There is no array to predict.")
    if len(arrays) == 1 and (names is None or len(names) == 1):
        return next(iter(arrays.values()))
    if names is not None and sorted(arrays) != sorted(names):
        raise InputError(
            "The names of the arrays must be those of the model's inputs, or there must be one of "
            f"each. Received: arrays {sorted(arrays)}, and inputs {sorted(names)}"
        )
    return dict(arrays)


def in_memory(x: Any) -> Any:
    """An array, or a dict of arrays, read as a whole."""
    if isinstance(x, dict):
        return {name: np.asarray(array) for name, array in x.items()}
    return np.asarray(x)


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    found = _find(file, name) if name else None
    if isinstance(found, h5py.Dataset):
        if found.is_virtual or found.external:
            raise _leads_out(file, name, "the rows of this dataset are in other files")
        return found
    present: list[str] = []
    file.visititems(
        lambda key, node: present.append(f"/{key}") if isinstance(node, h5py.Dataset) else None
    )
    listed = ", ".join(map(printable, present[:_MOST_LISTED])) or "no datasets"
    more = ", ..." if len(present) > _MOST_LISTED else ""
    asked = f"there is no dataset {name!r} in it" if name else "say which of its datasets"
    raise _NoDatasetError(
        f"{file.filename}:/NAME is how a dataset is named; {asked}. It has: {listed}{more}"
    )


def _find(file: h5py.File, name: str) -> Any | None:
    """What a path leads to, over soft links as well, but out of the file over none.

    Raises:
        InputError: If a link leads to another file.
    """
    node, parts, links = file["/"], name.split("/"), 0
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if isinstance(link, h5py.HardLink):
            node = node[part]
        elif isinstance(link, h5py.SoftLink) and links < _MOST_LINKS:
            links += 1
            parts = [*link.path.split("/"), *parts]
            node = file["/"] if link.path.startswith("/") else node
        elif isinstance(link, h5py.ExternalLink):
            raise _leads_out(file, name, f"a link leads to {link.filename!r}")
        else:
            return None
    return node


def _leads_out(file: h5py.File, name: str, how: str) -> InputError:
    return InputError(
        "A dataset must have its rows in its own HDF5 file; if you trust the link, open the "
        "dataset with h5py and pass it to kerasext.predict_to_hdf5 in Python. "
        f"Received: {file.filename}:{name}, where {how}"
    )
