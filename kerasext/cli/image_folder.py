"""A folder of images as an array that is read when it is sliced."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.cli.messages import InputError, printable
from kerasext.common import optional_package

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_THREADS = min(os.cpu_count() or 1, 16)  # pillow decodes outside of Python's lock

_AT_ONCE = 4096


class ImageError(Exception):
    """An image can't be read."""


def find_images(folder: Path) -> list[str]:
    """The images in a folder and those below.

    What macOS adds to folders and archives is left out: `._photo.jpg` and `__MACOSX`.

    Args:
        folder: Path.

    Returns:
        Sorted list of their paths, relative to the folder, with `/`.

    Raises:
        ImportError: If Pillow is not installed.
        InputError: If there are none.
    """
    _pillow()
    found = []
    for parent, folders, names in os.walk(folder):
        if "__MACOSX" in folders:
            folders.remove("__MACOSX")  # `os.walk` then leaves it out
        found += [
            Path(parent, name).relative_to(folder).as_posix()
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith("._")
        ]
    if not found:
        raise InputError(f"{str(folder)!r} has no images, that is no {' '.join(SUFFIXES)} files.")
    return sorted(found)


def id_of(name: str) -> str:
    r"""The path of an image as text: a byte that is not UTF-8 becomes its number, as in `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def find_bad_images(folder: Path, names: Sequence[str], *, decode: bool) -> dict[str, str]:
    """The images that can't be read.

    Args:
        folder: Path.
        names: Their paths in it.
        decode: Bool. Whether all pixels are read, which takes as long as in predicting, or only
            what the file begins with.

    Returns:
        Dict from name to reason.
    """

    def reason(name: str) -> str | None:
        try:
            with _open(folder / name) as image:
                if image.mode in ("I", "F"):
                    return "it has pixels of 32 bits"
                if decode:
                    image.load()
        except Exception as error:  # noqa: BLE001 - pillow's decoders raise anything
            return _why(error)
        return None

    bad = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        # Some at a time: what waits in a pool takes memory.
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]
            reasons = zip(part, pool.map(reason, part), strict=True)
            bad.update({name: why for name, why in reasons if why})
    return bad


class ImageFolder:
    """Images as an array of shape `(images, height, width, channels)`, float32 from 0 to 255.

    Each is stretched to the size bilinearly, without antialiasing, as
    `keras.utils.image_dataset_from_directory` does it on TensorFlow. Of several frames the first
    one is read; 16 bits become 8. Only slices of images are read.

    Args:
        folder: Path.
        names: Sequence of strings. The paths of the images in it.
        image_shape: Tuple of height, width and channels, 1 for gray, 3 for RGB, or 4 for RGBA.

    Raises:
        InputError: If there is another number of channels.
        ImageError: When a slice is read, if one of its images can't be.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, folder: Path, names: Sequence[str], image_shape: tuple[int, int, int]
    ) -> None:
        if image_shape[-1] not in _MODES:
            raise InputError(
                "A model that predicts images takes 1 channel (gray), 3 (RGB) or 4 (RGBA), on the "
                f"last axis. Received: an input of shape {image_shape}"
            )
        self.names = names
        self.shape = (len(names), *image_shape)
        self._folder = folder
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="kerasext-images")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice) -> np.ndarray:
        names = self.names[rows]
        images = np.empty((len(names), *self.shape[1:]), self.dtype)
        # In order, so that the first of several that can't be read is named.
        for _ in self._pool.map(self._read_into, images, names):
            pass
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Reading images always makes a copy. Received: copy=False")
        return self[:].astype(dtype or self.dtype, copy=False)

    def _read_into(self, pixels: np.ndarray, name: str) -> None:
        height, width, channels = self.shape[1:]
        try:
            with _open(self._folder / name) as image:
                if image.mode.startswith("I;16"):
                    read = np.asarray(image, np.float32)[..., None] / 257
                else:
                    read = np.asarray(image.convert(_MODES[channels]))
            pixels[:] = resized(read.reshape(*read.shape[:2], -1), height, width)
        except Exception as error:
            raise ImageError(f"'{printable(name)}' can't be read: {_why(error)}") from error


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels stretched to a size, bilinearly and without antialiasing.

    The centers of pixels lie at halves, as for `tf.image.resize`; beyond them the outermost pixels
    go on.

    Args:
        pixels: Array of shape `(rows, columns, channels)`.
        height: Int.
        width: Int.

    Returns:
        Array of shape `(height, width, channels)`, float32.
    """
    # First along the axis of the rows, of which only those that are needed are taken.
    for axis, length in enumerate((height, width)):
        before, after, share = _neighbours(pixels.shape[axis], length)
        share = share.reshape(-1, *[1] * (2 - axis))
        first = np.take(pixels, before, axis).astype(np.float32)
        pixels = first + (np.take(pixels, after, axis) - first) * share
    return pixels


def _neighbours(given: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels that each wanted one lies between, and how far it is from the first."""
    place = (np.arange(wanted, dtype=np.float32) + 0.5) * np.float32(given / wanted) - 0.5
    before = np.floor(place)
    share = place - before
    places = [np.clip(n, 0, given - 1).astype(np.intp) for n in (before, before + 1)]
    return places[0], places[1], share


def _pillow() -> Any:
    return optional_package("PIL.Image", needed_by="a folder of images")


def _open(path: Path) -> Any:
    return _pillow().open(path)


def _why(error: Exception) -> str:
    # Pillow's own messages name the whole path again.
    return "it is no image" if type(error).__name__ == "UnidentifiedImageError" else str(error)


def listed(bad: dict[str, str], most: int) -> Iterator[str]:
    """Lines that name images that can't be read, and say why."""
    for name in list(bad)[:most]:
        yield f"  {printable(name)}: {printable(bad[name])}"
    if len(bad) > most:
        yield f"  and {len(bad) - most:,} more"
