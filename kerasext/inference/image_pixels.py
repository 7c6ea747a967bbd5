"""The pixels of one image file, as an array of the size and the channels that a model takes."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasext.common import optional_package

CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
"""The channels of each `color_mode`, Keras's names."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names
# By content, whatever the suffix says. For others, such as PostScript, Pillow starts programs.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
# JPEGs below both limits are decoded at once. Larger ones have Pillow's protection of the memory.
_SMALL_FILE = 1 << 16  # bytes
_SMALL_IMAGE = 1 << 20  # pixels
# Without these flags, a named pipe would block, and Windows would translate line ends.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class UnreadableImageError(ValueError):
    """An image cannot be read: it is damaged, it is no image, or it vanished."""


def pillow() -> Any:
    """Imports `PIL.Image`.

    Raises:
        ImportError: If Pillow is not installed.
    """
    return optional_package("PIL.Image", needed_by="a folder of images")


@contextlib.contextmanager
def opened_image(path: str) -> Iterator[Any]:
    """Opens an image file, once, until the `with` block ends.

    Args:
        path: String.

    Returns:
        A `PIL.Image.Image`. Its pixels may not be decoded yet.

    Raises:
        Exception: Whatever Pillow raises.
        ValueError: If the pixels have 32 bits, whose range is unknown.
    """
    # `open` makes seven system calls. At each of them another thread can take Python's lock.
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        data = os.read(descriptor, _SMALL_FILE)
        image = _decoded_jpeg(data) if len(data) < _SMALL_FILE else None
        if image is not None:
            yield image
            return
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            image = pillow().open(file, formats=_FORMATS)
            if image.mode in ("I", "F"):
                raise ValueError("it has pixels of 32 bits")
            yield image
    finally:
        os.close(descriptor)


def pixels_of(image: Any, channels: int) -> np.ndarray:
    """Decodes an image.

    Of several frames the first one is read. 16 bits become 8. Exif does not rotate the image.

    Args:
        image: A `PIL.Image.Image`.
        channels: Int. 1, 3 or 4.

    Returns:
        Array of shape `(height, width, channels)`, uint8; or `(height, width, 1)`, float32, if the
        image has 16 bits, which are gray in Pillow.
    """
    if image.mode.startswith("I;16"):
        return np.asarray(image, np.float32)[..., None] / np.float32(257)
    mode = _MODES[channels]
    if image.mode != mode:
        image = image.convert(mode)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stretches an image bilinearly, without antialiasing.

    The centers of pixels lie at halves, as for `tf.image.resize`. Beyond the outermost centers the
    outermost pixels continue.

    Args:
        pixels: Array of shape `(rows, columns, channels)`.
        height: Int.
        width: Int.

    Returns:
        Array of shape `(height, width, channels)`, float32; `pixels` if it has the size already.
    """
    rows, columns = pixels.shape[:2]
    left, right, to_right = _neighbours(columns, width)
    if rows != height:
        above, below, down = _neighbours(rows, height)
        upper, lower = np.take(pixels, above, 0), np.take(pixels, below, 0)
        if columns > 2 * width:  # most columns are not needed: drop them before the arithmetic
            both = np.concatenate([left, right])
            upper, lower = np.take(upper, both, 1), np.take(lower, both, 1)
            left, right = np.arange(width), np.arange(width, 2 * width)
        pixels = _between(upper, lower, down[:, None, None])
    if pixels.shape[1] != width:
        pixels = _between(np.take(pixels, left, 1), np.take(pixels, right, 1), to_right[:, None])
    return pixels


def reason(error: Exception) -> str:
    """Says why an image cannot be read, without its path."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is no image"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _decoded_jpeg(data: bytes) -> Any | None:
    """A small gray or RGB JPEG as an image; `None` for others, and if it is damaged.

    Pillow's `open` takes as long as decoding an image of 64 x 64, all of it with Python's lock.
    """
    header = _header_of_jpeg(data)
    if header is None:
        return None
    mode, size = header
    try:
        return pillow().frombytes(mode, size, data, "jpeg", mode, "")
    except (OSError, ValueError):  # `open` raises an error that says more
        return None


def _header_of_jpeg(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """Pillow's mode and the size, `(width, height)`, of a small gray or RGB JPEG."""
    if not data.startswith(b"\xff\xd8"):
        return None
    place = 2  # of the next marker
    while place + 9 < len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], data[place + 2] << 8 | data[place + 3]
        if marker in (0xC0, 0xC1, 0xC2):  # the frame: baseline, extended or progressive
            bits, high, low, wide, narrow, channels = data[place + 4 : place + 10]
            size = wide << 8 | narrow, high << 8 | low
            mode = {1: "L", 3: "RGB"}.get(channels)
            is_small = 0 < size[0] * size[1] <= _SMALL_IMAGE
            return (mode, size) if mode and bits == 8 and is_small else None
        if marker < 0xC4 or 0xD0 <= marker <= 0xDA:  # no segment with a length, or the pixels
            return None
        place += 2 + length
    return None


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    first = first.astype(np.float32, copy=False)
    between: np.ndarray = second - first
    between *= share
    between += first
    return between


@functools.lru_cache(maxsize=256)  # most folders have images of few sizes
def _neighbours(given: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels that each wanted one lies between, and how far it is from the first."""
    place = (np.arange(wanted, dtype=np.float32) + 0.5) * np.float32(given / wanted) - 0.5
    before = np.floor(place)
    share = place - before
    places = [np.clip(n, 0, given - 1).astype(np.intp) for n in (before, before + 1)]
    return places[0], places[1], share
