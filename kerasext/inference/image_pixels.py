"""The pixels of one image file, as an array of the size and the channels that a model takes."""

from __future__ import annotations

import functools
from typing import Any, BinaryIO

import numpy as np

from kerasext.common import optional_package

CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
"""The channels of each `color_mode`, Keras's names."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names
# By content, whatever the suffix says. For others, such as PostScript, Pillow starts programs.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
# JPEGs below both limits are decoded at once. Larger ones have Pillow's protection of the memory.
_SMALL_FILE = 1 << 17  # bytes
_SMALL_IMAGE = 1 << 20  # pixels


class UnreadableImageError(ValueError):
    """An image cannot be read: it is damaged, it is no image, or it vanished."""


def pillow() -> Any:
    """Imports `PIL.Image`.

    Raises:
        ImportError: If Pillow is not installed.
    """
    return optional_package("PIL.Image", needed_by="a folder of images")


def open_image(file: BinaryIO) -> Any:
    """Opens an image.

    Args:
        file: Binary file. It must stay open until the image is decoded.

    Returns:
        A `PIL.Image.Image`. Its pixels may not be decoded yet.

    Raises:
        Exception: Whatever Pillow raises.
        ValueError: If the pixels have 32 bits, whose range is unknown.
    """
    data = file.read(_SMALL_FILE)
    header = _header_of_jpeg(data) if len(data) < _SMALL_FILE else None
    if header:
        mode, size = header
        try:
            return pillow().frombytes(mode, size, data, "jpeg", mode, "")
        except (OSError, ValueError):
            pass  # `open` raises an error that says more
    file.seek(0)
    image = pillow().open(file, formats=_FORMATS)
    if image.mode in ("I", "F"):
        raise ValueError("it has pixels of 32 bits")
    return image


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
    if columns > 2 * width:
        # Each column is computed from two. Blending the rows of the others would be wasted.
        before, after, share = _neighbours(columns, width)
        pixels = pixels[:, np.concatenate([before, after])]
        pixels = _blended(pixels, *_neighbours(rows, height), axis=0)
        return _between(pixels[:, :width], pixels[:, width:], share[:, None])
    if rows != height:
        pixels = _blended(pixels, *_neighbours(rows, height), axis=0)
    if columns != width:
        pixels = _blended(pixels, *_neighbours(columns, width), axis=1)
    return pixels


def reason(error: Exception) -> str:
    """Says why an image cannot be read, without its path."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is no image"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _header_of_jpeg(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """Pillow's mode and the size, `(width, height)`, of a gray or RGB JPEG; `None` for others.

    Pillow's own parser takes as long as decoding an image of 64 x 64.
    """
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


def _blended(
    pixels: np.ndarray, before: np.ndarray, after: np.ndarray, share: np.ndarray, *, axis: int
) -> np.ndarray:
    share = share.reshape(-1, *[1] * (2 - axis))
    first = np.take(pixels, before, axis).astype(np.float32)
    return _between(first, np.take(pixels, after, axis), share)


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    between: np.ndarray = first + (second - first) * share
    return between


@functools.lru_cache(maxsize=256)  # most folders have images of few sizes
def _neighbours(given: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels that each wanted one lies between, and how far it is from the first."""
    place = (np.arange(wanted, dtype=np.float32) + 0.5) * np.float32(given / wanted) - 0.5
    before = np.floor(place)
    share = place - before
    places = [np.clip(n, 0, given - 1).astype(np.intp) for n in (before, before + 1)]
    return places[0], places[1], share
