"""What an output looks like in the file whose rows differ in shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec, NewColumn
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.format.layout import MOST_AXES, ROW_SHAPES, ROW_SPLITS, VALUES

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_INT64 = np.dtype(np.int64)


@dataclass(frozen=True)
class RaggedSpec:
    """Name, number of axes and dtypes of an output that is stored flat.

    Args:
        name: String. Path of the group.
        axes: Int. Axes of one row.
        values: `DenseSpec` of single numbers, under the name of the output.
        row_numbers: Float. Numbers in a row of the first step, on average; 0 if unknown.
    """

    name: str
    axes: int
    values: DenseSpec
    row_numbers: float = 0.0

    @classmethod
    def of_rows(
        cls, name: str, rows: np.ndarray | RaggedRows, dtype: DTypeLike | None = None
    ) -> RaggedSpec:
        """The spec of an output from its first rows.

        Args:
            name: String. Path of the group.
            rows: Array of shape `(rows, n, ...)`, or `RaggedRows`.
            dtype: Dtype to store it as. Defaults to its own, or the nearest that HDF5 has.

        Raises:
            ValueError: If rows have more axes than HDF5 has.
            TypeError: If HDF5 has no type for it, or `dtype` can't hold its values.
        """
        ragged = RaggedRows.of(rows)
        if not 1 <= ragged.axes <= MOST_AXES:
            raise ValueError(
                f"Rows of output {name!r} must have 1 to {MOST_AXES} axes. "
                f"Received: rows of {ragged.axes} axes"
            )
        values = DenseSpec.of_array(name, ragged.values, dtype)
        return cls(name, ragged.axes, values, len(ragged.values) / max(len(ragged), 1))

    def columns(self, expected_rows: int | None) -> list[NewColumn]:
        """The datasets that it is made of; see `DenseSpec.columns`."""
        numbers = None
        if expected_rows is not None and self.row_numbers:
            # Twice what the first step makes likely: its rows may have been the short ones.
            numbers = int(2 * self.row_numbers * expected_rows)
        values = replace(self.values, name=f"{self.name}/{VALUES}")
        splits = DenseSpec(f"{self.name}/{ROW_SPLITS}", (), _INT64)
        columns = [
            # Rows have any number of them: only bytes count.
            NewColumn(values, numbers, most_per_chunk=2**32),
            # The first entry, 0, is the fill value that HDF5 has for what was not written.
            NewColumn(splits, expected_rows, length=1),
        ]
        if self.axes > 1:
            shapes = DenseSpec(f"{self.name}/{ROW_SHAPES}", (self.axes,), _INT64)
            columns.append(NewColumn(shapes, expected_rows))
        return columns

    @property
    def text_dtype(self) -> np.dtype[Any] | None:
        """The dtype in the file if it is text, else `None`."""
        return self.values.text_dtype

    def widened(self, width: int) -> RaggedSpec:
        """The same for text of up to so many bytes."""
        return replace(self, values=self.values.widened(width))

    def check_same(self, other: RaggedSpec, path: object) -> None:
        """Raises `ValueError` if rows of this spec can't be continued as those of `other`."""
        if self.axes == other.axes and self.text_dtype is not None:
            self.values.check_same(other.values, path)
        elif not other.can_hold(self):
            raise ValueError(
                f"Output {self.name!r} must keep the number of axes and dtype that {path} has; "
                "pass the same `dtypes` as for the first rows, or write to another file. "
                f"Stored: {self.description}. Received: {other.description}"
            )

    def can_hold(self, other: RaggedSpec) -> bool:
        """Whether rows of `other` are rows of this one as they stand, text padded if need be."""
        return self.axes == other.axes and self.values.can_hold(other.values)

    @property
    def description(self) -> str:
        """Axes and dtype in the file, for messages."""
        dtype = self.values.description.partition("dtype ")[2]
        return f"rows of {self.axes} axes of any length, dtype {dtype}"

    def prepare(self, rows: np.ndarray | RaggedRows) -> RaggedRows:
        """Checks rows of this output and casts them to the stored dtype.

        Args:
            rows: Array of shape `(rows, n, ...)`, or `RaggedRows`.

        Raises:
            ValueError: If its number of axes or dtype differ from the first step's, or a value does
                not fit into the stored dtype.
        """
        axes = rows.axes if isinstance(rows, RaggedRows) else rows.ndim - 1
        if axes != self.axes:
            raise ValueError(
                f"Rows of output {self.name!r} must have the same number of axes in every step; "
                "only their lengths may differ. "
                f"First step: {self.axes}. Received: rows of {axes} axes"
            )
        ragged = RaggedRows.of(rows)
        return RaggedRows(self.values.prepare(ragged.values), ragged.row_shapes)
