"""Reading outputs from the first row to the last, some rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.reading.dense_output import DenseOutput
from kerasext.storage.reading.ragged_output import RaggedOutput

Output = DenseOutput | RaggedOutput

_SPLIT_BYTES = 8


def row_blocks(
    outputs: Collection[Output],
    most_bytes: int,
    *,
    multiple: int = 1,
    most_rows: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Cuts the rows of outputs into blocks that are read one after the other.

    Args:
        outputs: The outputs, at least one, all of the same number of rows.
        most_bytes: Int. Bytes that the arrays of a block have, if that is not less than `multiple`
            rows.
        multiple: Int. Rows in each block are a multiple of it; the last has what is left.
        most_rows: Int. Rows of a block at most. Defaults to `None`, for any number.

    Yields:
        Tuple of the first row of a block, and the one after its last.
    """
    rows = len(next(iter(outputs)))
    ragged = [output for output in outputs if isinstance(output, RaggedOutput)]
    fixed = sum(map(_fixed_bytes, outputs))
    most = max(min(most_bytes // max(fixed, 1), most_rows or rows) // multiple, 1) * multiple
    start = 0
    while start < rows:
        stop = min(start + most, rows)
        used = np.arange(stop - start + 1, dtype=np.float64) * fixed
        for output in ragged:
            ends = np.cumsum([0, *output.row_sizes(start, stop)])
            used += ends * float(output.dtype.itemsize)
        fitting = int(np.searchsorted(used, most_bytes, "right")) - 1
        stop = min(start + max(fitting // multiple, 1) * multiple, stop)
        yield start, stop
        start = stop


def read_rows(output: Output, start: int, stop: int) -> np.ndarray | RaggedRows:
    """The rows of an output from one to before another, in the machine's byte order."""
    if isinstance(output, DenseOutput):
        return _native(output[start:stop])
    rows = output.flat(start, stop)
    return RaggedRows(_native(rows.values), rows.row_shapes)


def _fixed_bytes(output: Output) -> int:
    """Bytes that every row takes, of whatever shape."""
    if isinstance(output, DenseOutput):
        return int(np.prod(output.shape[1:], dtype=np.int64)) * output.dtype.itemsize
    return _SPLIT_BYTES * output.ndim


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)
