"""What one output looks like in the file, and how arrays are made to look so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from kerasext.storage.columns import fixed_point
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.text import TEXT_KINDS, encode_text, no_type
from kerasext.storage.format.layout import MOST_AXES

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

DEFAULT_STRING_BYTES = 64
MOST_PER_CHUNK = 65536
"""Rows, so that few bytes per row make no chunk of very many."""

_LARGEST_ROW_BYTES = 2**32 - 1  # HDF5's limit on a chunk, and a chunk holds at least one row


class TextTooLongError(ValueError):
    """A string is longer than its place in the file.

    Args:
        output: String. Name of the output.
        width: Int. Bytes of UTF-8 that it needs.
        dtype: The dtype that it is stored as.
    """

    def __init__(self, output: str, width: int, dtype: np.dtype[Any]) -> None:
        super().__init__(
            f"A string of output {output!r} is longer than its place in the file; pass "
            f"`dtypes={{{output!r}: 'S{width}'}}` or more, and mode='resume' to keep the rows that "
            f"were written. Received: {width} bytes of UTF-8, dtype={dtype}"
        )
        self.output, self.width = output, width


class NewColumn(NamedTuple):
    """A dataset that is to be made for an output.

    Args:
        spec: `DenseSpec` with the name of the dataset.
        expected_length: Int. Entries that it will have, or `None` if unknown.
        length: Int. Entries that it has at once, which are zeros.
        most_per_chunk: Int. Entries in a chunk at most.
    """

    spec: DenseSpec
    expected_length: int | None
    length: int = 0
    most_per_chunk: int = MOST_PER_CHUNK


@dataclass(frozen=True)
class DenseSpec:
    """Name, shape of one row and dtypes of an output.

    Args:
        name: String. Path of the dataset.
        row_shape: Tuple of ints. Shape of one row; `()` for one number per row.
        dtype: Dtype in the file. Strings are fixed-width, `S` followed by a number of bytes.
        incoming: Dtype of the arrays that `prepare` takes, or `None` where only the file is known.
        scale: Float32. The step between two numbers where floats are stored as whole numbers: see
            `fixed_point`. `None` elsewhere.
    """

    name: str
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    incoming: np.dtype[Any] | None = None
    scale: np.float32 | None = None

    @classmethod
    def of_array(
        cls, name: str, array: np.ndarray | RaggedRows, dtype: DTypeLike | None = None
    ) -> DenseSpec:
        """The spec of an output from its first array.

        Args:
            name: String. Path of the dataset.
            array: Array of shape `(rows, ...)`.
            dtype: Dtype to store it as. Defaults to the array's own, or the nearest that HDF5 has.

        Raises:
            ValueError: If the array has no rows axis, or a row is too large or has too many axes
                for HDF5.
            TypeError: If HDF5 has no type for it, `dtype` can't hold its values, or its rows differ
                in shape.
        """
        array = _dense(name, array)
        if array.dtype == object and array.ndim == 0:
            raise no_type(name, array.item())
        if array.ndim == 0:
            raise ValueError(
                f"Output {name!r} must have rows as its first axis; return one value per sample. "
                f"Received: shape={array.shape}"
            )
        if array.ndim - 1 > MOST_AXES:
            raise ValueError(
                f"Rows of output {name!r} must have at most {MOST_AXES} axes, the limit of "
                f"HDF5; reshape them in the model. Received: shape={array.shape}"
            )
        stored = _default_dtype(name, array) if dtype is None else np.dtype(dtype)
        scale = fixed_point.scale_for(stored) if _is_float(name, array) else None
        if dtype is not None and scale is None and not _can_store(array, stored):
            raise TypeError(
                f"Output {name!r} can't be stored as asked; choose another entry in `dtypes`. "
                f"Received: dtype={array.dtype}, dtypes[{name!r}]={stored}"
            )
        spec = cls(name, array.shape[1:], stored, array.dtype, scale)
        if spec.row_bytes > _LARGEST_ROW_BYTES:
            raise ValueError(
                f"One row of output {name!r} must be smaller than 4 GiB. "
                f"Received: shape={array.shape}, dtype={array.dtype}"
            )
        return spec

    @classmethod
    def of_dataset(cls, dataset: h5py.Dataset) -> DenseSpec:
        """The spec that a dataset was made with."""
        dtype, scale = np.dtype(dataset.dtype.str), fixed_point.scale_of(dataset)
        return cls(dataset.name.lstrip("/"), dataset.shape[1:], dtype, scale=scale)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in the file."""
        return self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))

    @property
    def description(self) -> str:
        """Row shape and dtype in the file, for messages."""
        steps = "" if self.scale is None else f" in steps of {self.scale!s}"
        return f"row shape {self.row_shape}, dtype {self.dtype}{steps}"

    @property
    def h5_dtype(self) -> np.dtype[Any]:
        """The dtype to create the dataset with."""
        if self.dtype.kind != "S":
            return self.dtype
        dtype: np.dtype[Any] = h5py.string_dtype("utf-8", self.dtype.itemsize)
        return dtype

    @property
    def read_dtype(self) -> np.dtype[Any]:
        """The dtype of the arrays that `decode` returns."""
        if self.dtype.kind == "S":
            return np.dtype(f"U{self.dtype.itemsize}")
        return self.dtype if self.scale is None else np.dtype(np.float32)

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Makes of an array in the stored dtype what readers get: text, or floats.

        Raises:
            ValueError: If text is not UTF-8.
        """
        if self.scale is not None:
            return fixed_point.decode(stored, self.scale)
        if self.dtype.kind != "S":
            return stored
        return np.char.decode(stored.astype(self.dtype), "utf-8").astype(self.read_dtype)

    def check_same(self, other: DenseSpec, path: object) -> None:
        """Raises `ValueError` if a dataset of this spec can't be continued as one of `other`.

        Text may get wider.
        """
        if not other.can_hold(self):
            if self.row_shape == other.row_shape and self.dtype.kind == other.dtype.kind == "S":
                raise ValueError(
                    f"Text of output {self.name!r} can't get narrower than in {path}; pass "
                    f"`dtypes={{{self.name!r}: '{self.dtype.str[1:]}'}}`, or leave the output out "
                    f"of `dtypes`. Received: {other.dtype.str[1:]!r}"
                )
            raise ValueError(
                f"Output {self.name!r} must keep the row shape and dtype that {path} has; pass the "
                "same `dtypes` as for the first rows, or write to another file. "
                f"Stored: {self.description}. Received: {other.description}"
            )

    def can_hold(self, other: DenseSpec) -> bool:
        """Whether rows of `other` are rows of this one as they stand, text padded if need be."""
        is_text = self.dtype.kind == other.dtype.kind == "S"
        fits = self.dtype.itemsize >= other.dtype.itemsize
        same = (is_text and fits) or (self.dtype, self.scale) == (other.dtype, other.scale)
        return self.row_shape == other.row_shape and same

    @property
    def text_dtype(self) -> np.dtype[Any] | None:
        """The dtype in the file if it is text, else `None`."""
        return self.dtype if self.dtype.kind == "S" else None

    def widened(self, width: int) -> DenseSpec:
        """The same for text of up to so many bytes."""
        return replace(self, dtype=np.dtype(f"S{width}"))

    def columns(self, expected_rows: int | None) -> list[NewColumn]:
        """The datasets that it is made of.

        Args:
            expected_rows: Rows that the file will hold, or `None` if unknown.
        """
        return [NewColumn(self, expected_rows)]

    def prepare(self, array: np.ndarray | RaggedRows) -> np.ndarray:
        """Checks an array of this output and casts it to the stored dtype.

        Args:
            array: Array of shape `(rows, *row_shape)`.

        Returns:
            Array of the same shape in the stored dtype; the argument itself where nothing changes.

        Raises:
            ValueError: If its shape or dtype differ from the first step's, or a value does not fit
                into the stored dtype: `TextTooLongError` for text.
            TypeError: If its rows differ in shape.
        """
        array = _dense(self.name, array)
        if array.shape[1:] != self.row_shape or array.ndim == 0:
            differs_in_length = self.row_shape and array.ndim == len(self.row_shape) + 1
            remedy = f"; pass `ragged=[{self.name!r}]` to store rows of different shapes"
            raise ValueError(
                f"Output {self.name!r} must have the same row shape in every step"
                f"{remedy if differs_in_length else ''}. "
                f"First step: {self.row_shape}. Received: shape={array.shape}"
            )
        is_text = self.dtype.kind == "S"
        if is_text and array.dtype.kind in TEXT_KINDS:
            return self._encode(array)
        if array.dtype == self.dtype and self.scale is None:
            return array
        if is_text or array.dtype != self.incoming:
            raise ValueError(
                f"Output {self.name!r} must have the same dtype in every step. "
                f"First step: {self.incoming}. Received: dtype={array.dtype}"
            )
        return self._cast(array) if self.scale is None else self._as_fixed_point(array)

    def _as_fixed_point(self, array: np.ndarray) -> np.ndarray:
        try:
            return fixed_point.encode(array, self.dtype)
        except OverflowError as error:
            values = array.astype(np.float64)
            raise ValueError(
                f"Values of output {self.name!r} must be in [0, 1], or NaN, to be stored as "
                f"{self.dtype}, which is for probabilities, confidence and margin; choose "
                f"`dtypes={{{self.name!r}: 'float16'}}` for others. "
                f"Received: values from {np.nanmin(values):.6g} to {np.nanmax(values):.6g}"
            ) from error

    def _cast(self, array: np.ndarray) -> np.ndarray:
        try:
            with np.errstate(over="raise"):
                cast = array.astype(self.dtype)
        except FloatingPointError as error:
            raise self._overflow(array) from error
        # Integers wrap around without a word.
        if array.dtype.kind in "iu" and self.dtype.kind in "iu" and not np.array_equal(cast, array):
            raise self._overflow(array)
        return cast

    def _overflow(self, array: np.ndarray) -> ValueError:
        return ValueError(
            f"A value of output {self.name!r} does not fit into the dtype it is stored as; choose "
            f"a wider or signed one in `dtypes`. Received: values from {np.nanmin(array)} to "
            f"{np.nanmax(array)}, dtype={self.dtype}"
        )

    def _encode(self, array: np.ndarray) -> np.ndarray:
        encoded = encode_text(self.name, array)
        if encoded.dtype.itemsize > self.dtype.itemsize:
            # NumPy's own are as wide as they were declared.
            longest = int(np.char.str_len(encoded).max(initial=0))
            if longest > self.dtype.itemsize:
                raise TextTooLongError(self.name, longest, self.dtype)
        return encoded.astype(self.dtype, copy=False)


def _dense(name: str, rows: np.ndarray | RaggedRows) -> np.ndarray:
    if isinstance(rows, RaggedRows):
        raise TypeError(
            f"Output {name!r} must be a dense array; pass `ragged=[{name!r}]` to store rows of "
            "different shapes. Received: rows of different shapes, as of a RaggedTensor"
        )
    return rows


def _default_dtype(name: str, array: np.ndarray) -> np.dtype[Any]:
    dtype = array.dtype
    if dtype.kind == "S" and dtype.itemsize:
        return dtype
    if dtype.kind in TEXT_KINDS:
        return np.dtype(f"S{DEFAULT_STRING_BYTES}")
    if dtype.isbuiltin != 2 and _has_h5_type(dtype):
        return dtype
    # bfloat16, float8 and int4 are extension dtypes, which h5py stores as opaque bytes or not.
    for standard in (np.int8, np.uint8, np.float32):
        if dtype.isbuiltin == 2 and np.can_cast(dtype, standard):
            return np.dtype(standard)
    raise TypeError(
        f"HDF5 has no type for output {name!r}; cast it in the model. Received: dtype={dtype}"
    )


def _is_float(name: str, array: np.ndarray) -> bool:
    # bfloat16 and float8 are of no kind: they are what becomes of them.
    return array.dtype.kind == "f" or (
        array.dtype.isbuiltin == 2 and _default_dtype(name, array).kind == "f"
    )


def _has_h5_type(dtype: np.dtype[Any]) -> bool:
    try:
        h5py.h5t.py_create(dtype, logical=True)
    except TypeError:
        return False
    return dtype.kind in "biufc"


def _can_store(array: np.ndarray, dtype: np.dtype[Any]) -> bool:
    if array.dtype.kind in TEXT_KINDS or dtype.kind == "S":
        return array.dtype.kind in TEXT_KINDS and dtype.kind == "S" and dtype.itemsize > 0
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        return True  # every value is checked when it is cast
    # An extension dtype such as bfloat16 knows the way to float32 only.
    source = np.dtype(np.float32) if array.dtype.isbuiltin == 2 else array.dtype
    return dtype.kind in "biufc" and np.can_cast(source, dtype, "same_kind")
