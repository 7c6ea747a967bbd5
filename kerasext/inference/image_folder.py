"""A folder of images as an array that is read when it is sliced."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from kerasext.inference.image_paths import SUFFIXES, as_text, classes_of, find_images
from kerasext.inference.image_pixels import (
    CHANNELS,
    UnreadableImageError,
    opened_image,
    pillow,
    pixels_of,
    reason,
    resized,
)

Result = TypeVar("Result")

# Pillow decodes without the lock of Python. More threads than cores would only wait for the lock.
_THREADS = min(os.cpu_count() or 1, 16)
_MOST_AT_ONCE = 16  # images that a thread takes; one by one, handing them out takes longer
_CHECKED_AT_ONCE = 4096


class SkippedImage(NamedTuple):
    """An image that `ImageFolder(skip_bad=True)` left out.

    Attributes:
        position: Int. Its position among all images, those that were left out included.
        path: String. As in `ImageFolder.paths`.
        reason: String. Why it cannot be read.
    """

    position: int
    path: str
    reason: str


class ImageFolder:
    r"""A folder of images as an array, in constant memory: images are read when they are sliced.

    The images of the folder and of all folders in it are sorted by path. The array has the shape
    `(images, height, width, channels)` and the dtype float32, from 0 to 255. Images of another size
    are stretched bilinearly, without antialiasing, as `keras.utils.image_dataset_from_directory`
    does it. Of several frames the first one is read. 16 bits become 8. Exif does not rotate images.

    If all images are in folders, the first folder of each path is the class of the image, as in
    `keras.utils.image_dataset_from_directory`.

    Files are images if they end in .jpg, .jpeg, .png, .bmp, .gif, .tif, .tiff or .webp. The files
    `._*` and the folders `__MACOSX` that macOS adds are left out, and links to folders are not
    followed.

    Args:
        directory: String or path. The folder.
        class_names: Sequence of strings. The names of the classes in the order of training, which
            must contain each folder. Defaults to `None`, for all folders in alphabetical order.
        color_mode: String out of `"grayscale"`, `"rgb"` and `"rgba"`. Defaults to `"rgb"`.
        image_size: Tuple of ints, `(height, width)`. Defaults to `None`, for the size of the first
            image, which all others must have.
        skip_bad: Bool. Whether to leave out images that cannot be read. This decodes every image
            once before it returns. Defaults to `False`.

    Attributes:
        paths: List of strings. The path of each image relative to `directory`, with `/`. A byte
            that is not UTF-8 is written as its number, `\xe9`.
        labels: Array of shape `(images,)`, int32, with the position in `class_names` of the folder
            of each image; `None` if an image lies directly in `directory`.
        class_names: List of strings; `None` if `labels` is.
        skipped: List of `(position, path, reason)`, one for each image that `skip_bad` left out.
        shape: Tuple of ints, `(images, height, width, channels)`.
        dtype: float32.

    Raises:
        FileNotFoundError: If there is no such folder.
        ImportError: If Pillow is not installed.
        UnreadableImageError: If `image_size` is `None` and the first image cannot be read. When a
            slice is read: if one of its images cannot be.
        ValueError: If there are no images, `class_names` lacks a folder or repeats a name, or an
            argument is out of range. When a slice is read: if `image_size` is `None` and an image
            has another size.

    Example:

    ```python
    photos = ImageFolder("photos", image_size=(64, 64))
    photos.paths[0], photos.class_names[photos.labels[0]]  # "cat/1.jpg", "cat"
    photos[:8]  # the first images, an array of shape (8, 64, 64, 3)
    predict_to_hdf5(model, photos, "photos.h5", ids=photos.paths, targets=photos.labels)
    ```
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
        color_mode: str = "rgb",
        image_size: tuple[int, int] | None = None,
        skip_bad: bool = False,
    ) -> None:
        if color_mode not in CHANNELS:
            raise ValueError(
                f"`color_mode` must be one of {', '.join(map(repr, CHANNELS))}. "
                f"Received: color_mode={color_mode!r}"
            )
        pillow()
        self._directory = os.fspath(directory)
        self._names, folders = find_images(self._directory)
        self.skipped = _unreadable(self._directory, self._names) if skip_bad else []
        if self.skipped:
            bad = {image.position for image in self.skipped}
            self._names = [name for row, name in enumerate(self._names) if row not in bad]
        if not self._names:
            first = self.skipped[0] if self.skipped else None
            rule = (
                f"images that can be read; {first.path!r} can't: {first.reason}"
                if first
                else f"images, files that end in {' '.join(SUFFIXES)}"
            )
            raise ValueError(
                f"`directory` must have {rule}. Received: directory={self._directory!r}"
            )
        self.paths = list(map(as_text, self._names))
        self.labels, self.class_names = classes_of(self.paths, folders, class_names)
        self._rows = np.arange(len(self._names))
        self._has_size = image_size is not None
        size = _checked_size(image_size) if image_size is not None else self._size_of_first()
        self.shape = (len(self._names), *size, CHANNELS[color_mode])

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<ImageFolder {self._directory!r}: shape {self.shape}, float32>"

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Reads images.

        Args:
            rows: Int, slice, list or array of ints, or array of bools with one for each image.

        Returns:
            Array of shape `(rows, height, width, channels)`, or `(height, width, channels)` for an
            int. It is float32.
        """
        chosen: np.ndarray = self._rows[rows]
        if chosen.ndim == 0:
            image: np.ndarray = self[chosen[None]][0]
            return image
        if chosen.ndim > 1:
            raise IndexError(
                "The index must have one axis; index the array that it returns for more. "
                f"Received: an index of shape {chosen.shape}"
            )
        images = np.empty((len(chosen), *self.shape[1:]), self.dtype)

        def read(part: range) -> None:
            pixels = [self._read(self._names[chosen[row]]) for row in part]
            if all(array.dtype == np.uint8 for array in pixels):
                # At once: each assignment hands Python's lock to another thread.
                images[part.start : part.stop] = np.frombuffer(
                    b"".join(array.data for array in pixels), np.uint8
                ).reshape(-1, *self.shape[1:])
            else:
                for row, array in zip(part, pixels, strict=True):
                    images[row] = array

        _in_threads(read, range(len(chosen)))
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Reading images always makes a copy. Received: copy=False")
        images: np.ndarray = self[:].astype(dtype or self.dtype, copy=False)
        return images

    def _read(self, name: str) -> np.ndarray:
        """The pixels of an image, of all channels or of one that stands for all."""
        height, width, channels = self.shape[1:]
        try:
            with opened_image(self._path(name)) as image:
                size = image.size
                if self._has_size or size == (width, height):
                    return resized(pixels_of(image, channels), height, width)
        except MemoryError:  # which is no fault of the image
            raise
        except Exception as error:
            raise _unreadable_error(name, error) from error
        raise ValueError(
            "All images must have the size of the first one; pass image_size=(height, width). "
            f"Received: {as_text(name)!r} of {size[1]}x{size[0]}, the first of {height}x{width}"
        )

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)  # noqa: PTH118 - faster than `Path`

    def _size_of_first(self) -> tuple[int, int]:
        name = self._names[0]
        try:
            with opened_image(self._path(name)) as image:
                return image.height, image.width
        except Exception as error:
            raise _unreadable_error(name, error) from error


def _unreadable(directory: str, names: Sequence[str]) -> list[SkippedImage]:
    """The images that cannot be decoded."""

    def check(part: range) -> list[SkippedImage]:
        bad = []
        for row in part:
            try:
                with opened_image(os.path.join(directory, names[row])) as image:  # noqa: PTH118
                    image.load()
            except Exception as error:  # noqa: BLE001 - Pillow's decoders raise anything
                bad.append(SkippedImage(row, as_text(names[row]), reason(error)))
        return bad

    bad = []
    # Some at a time, because what waits in a pool takes memory.
    for start in range(0, len(names), _CHECKED_AT_ONCE):
        for some in _in_threads(check, range(len(names))[start : start + _CHECKED_AT_ONCE]):
            bad += some
    return bad


def _in_threads(function: Callable[[range], Result], rows: range) -> list[Result]:
    """What a function returns for parts of some rows, computed by several threads.

    Raises:
        Exception: What the function raised for the first part for which it did.
    """
    size = min(max(math.ceil(len(rows) / (4 * _THREADS)), 1), _MOST_AT_ONCE)
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    # In order, so that the first image that cannot be read is named.
    return list(_threads(os.getpid()).map(function, parts))


@functools.cache
def _threads(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a key of the cache
    """The threads of a process: after a fork, as in a `DataLoader`, a child has none."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="kerasext-images")


def _checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = (int(length) for length in image_size)
        if height > 0 and width > 0:
            return height, width
    except (TypeError, ValueError):
        pass
    raise ValueError(
        "`image_size` must be (height, width), two positive numbers. "
        f"Received: image_size={image_size!r}"
    )


def _unreadable_error(name: str, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(f"'{as_text(name)}' can't be read: {reason(error)}")
