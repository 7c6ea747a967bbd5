"""Small pictures of rows, as data in the page."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.common import optional_package
from kerasext.report.markup import tag
from kerasext.storage import IDS, ROW, DenseOutput, PredictionFile

PIXELS = 96
"""Width and height that no thumbnail is larger than."""

_FEW_PIXELS = 32  # width and height of pictures whose pixels are shown as they are
_MOST_BYTES = 1_400_000  # of all, for the page is to stay below 2 MiB
# The command line stores bytes of a file name that are not UTF-8 so.
_ESCAPED_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # Pillow starts programs for others


class Thumbnails:
    """Makes the pictures of rows.

    Args:
        images: Folder that holds the files whose names are the ids, or array-like of shape `(rows,
            height, width)` or `(rows, height, width, channels)` with 1, 3 or 4 channels: of the
            rows of the file, or of the data that they were kept of.
        predictions: The file.

    Raises:
        FileNotFoundError: If there is no such folder.
        ImportError: If Pillow is not installed.
        TypeError: If `images` is something else.
        ValueError: If the array has another shape or too few rows, or the file has no ids for a
            folder.
    """

    def __init__(self, images: Any, predictions: PredictionFile) -> None:
        self._image: Any = optional_package("PIL.Image", needed_by="write_report")
        self._images = Path(images) if isinstance(images, str | os.PathLike) else images
        self._bytes_left = _MOST_BYTES
        self._number: Any = predictions.get(ROW)
        if isinstance(self._images, Path):
            if not self._images.is_dir():
                raise FileNotFoundError(
                    "`images` must be a folder, or an array with an image for each row. "
                    f"Received: images={str(images)!r}"
                )
            ids = predictions.get(IDS)
            if not isinstance(ids, DenseOutput):
                raise ValueError(
                    "A folder of images needs ids, which are the names of its files; pass `ids` "
                    "when the rows are predicted, or an array with an image for each row. "
                    f"Received: images={str(images)!r}"
                )
            self._ids = ids
            return
        shape = getattr(images, "shape", None)
        if shape is None:
            raise TypeError(
                "`images` must be a folder, or an array with an image for each row. "
                f"Received: type(images)={type(images).__name__}"
            )
        if len(shape) not in {3, 4} or (len(shape) == 4 and shape[-1] not in {1, 3, 4}):
            raise ValueError(
                "`images` must have the shape (rows, height, width), or (rows, height, width, "
                f"channels) with 1, 3 or 4 channels. Received: shape={tuple(shape)}"
            )
        # As many as rows: they are those of the file. Else those of the data that were predicted.
        if len(images) == predictions.rows:
            self._number = None
        needed = predictions.rows if self._number is None else self._last_number(predictions) + 1
        if len(images) < needed:
            raise ValueError(
                f"`images` must have one for each row, at least {needed}. "
                f"Received: shape={tuple(shape)}"
            )

    def of(self, row: int) -> Any:
        """The picture of a row as an element, or a text that says why there is none."""
        try:
            picture = self._picture(row)
            data = self._encoded(picture)
        except FileNotFoundError:
            return "no such image"
        except _OutsideError:
            return "not in the folder of images"
        # Whatever is in a file of somebody: Pillow has errors of many kinds for it.
        except Exception as error:  # noqa: BLE001
            return f"not readable: {type(error).__name__}"
        if len(data) > self._bytes_left:
            return "left out, to keep the page small"
        self._bytes_left -= len(data)
        few = {"class_": "pixels"} if max(picture.size) <= _FEW_PIXELS else {}
        return tag("img", src=data, alt=f"Image of row {row}", **few)

    def _last_number(self, predictions: PredictionFile) -> int:
        return int(self._number[predictions.rows - 1]) if predictions.rows else -1

    def _picture(self, row: int) -> Any:
        if isinstance(self._images, Path):
            path = _path_of(str(self._ids[row]), self._images)
            with self._image.open(path, formats=_FORMATS) as picture:
                picture.draft("RGB", (2 * PIXELS, 2 * PIXELS))  # JPEG decodes a part only
                picture.thumbnail((PIXELS, PIXELS))
                # As stored, without the rotation that Exif asks for: so Keras gives it to models.
                return picture.copy()
        pixels = np.asarray(self._images[row if self._number is None else int(self._number[row])])
        if pixels.ndim == 3 and pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
        picture = self._image.fromarray(_as_bytes(pixels))
        picture.thumbnail((PIXELS, PIXELS))
        return picture

    def _encoded(self, picture: Any) -> str:
        buffer = io.BytesIO()
        has_alpha = "A" in picture.getbands() or "transparency" in picture.info
        picture = picture.convert("RGBA" if has_alpha else "RGB")
        picture.info.clear()  # by which browsers rotate it, and which may say where it was taken
        # Few pixels are shown as they are; JPEG would blur them.
        if has_alpha or max(picture.size) <= _FEW_PIXELS:
            kind = "png"
            picture.save(buffer, "PNG", optimize=True)
        else:
            kind = "jpeg"
            picture.save(buffer, "JPEG", quality=80, optimize=True)
        return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


class _OutsideError(Exception):
    """An id names something outside of the folder of images."""


def _path_of(id_: str, folder: Path) -> Path:
    """The image that an id names.

    An id is text of a file, which must not choose from all of the disk, nor by a link.

    Raises:
        FileNotFoundError: If there is no such file.
        _OutsideError: If it is not in the folder.
    """
    root = Path(os.path.realpath(folder))
    for name in (id_, os.fsdecode(_ESCAPED_BYTE.sub(_byte, os.fsencode(id_)))):
        path = Path(os.path.realpath(root / name))
        if not path.is_relative_to(root):
            raise _OutsideError
        if path.is_file():
            return path
    raise FileNotFoundError(id_)


def _byte(escape: re.Match[bytes]) -> bytes:
    return bytes([int(escape[1], 16)])


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Pixels from 0 to 255: numbers in [0, 1] times 255, others stretched to fill it."""
    if pixels.dtype == np.uint8:
        return pixels
    values = np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(initial=0.0), values.max(initial=0.0)
    if low < 0 or high > 1:
        values = (values - low) / (high - low)
    return np.round(values * 255).astype(np.uint8)
