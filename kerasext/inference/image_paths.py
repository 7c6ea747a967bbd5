"""The paths of the images in a folder, and the classes that its folders are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def find_images(directory: str) -> tuple[list[str], list[str]]:
    """The images in a folder, and the folders that lie directly in it.

    Returns:
        Tuple of the sorted paths of the images, relative to the folder and with `/`, and the names
        of the folders.

    Raises:
        FileNotFoundError: If there is no such folder.
        OSError: If a folder cannot be read.
    """
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"`directory` must be a folder. Received: directory={directory!r}")

    def stop(error: OSError) -> None:  # else a folder that must not be read is left out silently
        raise error

    found, folders, links = [], [], []
    for parent, below, names in os.walk(directory, onerror=stop):
        if "__MACOSX" in below:
            below.remove("__MACOSX")  # `os.walk` then leaves it out
        within = os.path.relpath(parent, directory).replace(os.sep, "/")
        if within == ".":
            # Keras counts empty folders as classes, and no hidden ones.
            folders = [name for name in below if not name.startswith(".")]
        start = "" if within == "." else f"{within}/"
        links += [start + name for name in below if Path(parent, name).is_symlink()]
        found += [
            start + name
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith("._")
        ]
    if links:
        warnings.warn(
            f"Links to folders are not followed; move the images. Received: {as_text(links[0])!r}"
            + (f" and {len(links) - 1:,} more" if links[1:] else ""),
            stacklevel=3,
        )
    return sorted(found), folders


def classes_of(
    paths: Sequence[str], folders: Iterable[str], given: Sequence[str] | None
) -> tuple[np.ndarray | None, list[str] | None]:
    """The class of each image, which is the first folder of its path.

    Args:
        paths: Sequence of strings.
        folders: Iterable of strings. Folders that are classes even if they have no images.
        given: Sequence of strings. The names of the classes; `None` for all folders, sorted.

    Returns:
        Tuple of the numbers of the classes, an int32 array, and the names of the classes. Both are
        `None` if an image has no folder.

    Raises:
        ValueError: If `given` lacks a folder, or has a name twice.
    """
    if not all("/" in path for path in paths):
        if given is not None:
            path = next(path for path in paths if "/" not in path)
            raise ValueError(
                "`class_names` needs all images in folders that have the names of the classes; "
                f"move the others or leave `class_names` out. Received: the image {path!r}"
            )
        return None, None
    of_images = [path.partition("/")[0] for path in paths]
    names = sorted({*map(as_text, folders), *of_images}) if given is None else list(given)
    numbers = {name: number for number, name in enumerate(names)}
    missing = sorted(set(of_images) - set(numbers))
    if missing or len(numbers) < len(names):
        raise ValueError(
            "`class_names` must have the name of each folder of images once. "
            f"Received: class_names={names}, folders without a name: {missing}"
        )
    return np.array([numbers[name] for name in of_images], np.int32), names


def as_text(name: str) -> str:
    r"""A path as text: a byte that is not UTF-8 becomes its number, as in `\xe9`."""
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")
