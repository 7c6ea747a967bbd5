"""How many rows stand in one chunk of a dataset."""

from __future__ import annotations

import math

from kerasext.storage.columns.dense_spec import MOST_PER_CHUNK, DenseSpec

# One write of a chunk costs about as much as copying 100 kB, and a reader loads whole chunks.
_CHUNK_BYTES = 1024 * 1024
_SMALLEST_CHUNK_BYTES = 16 * 1024
# Beyond about 8,180 chunks HDF5's index of chunks outgrows a page of 4 KiB, and a kill can tear it.
_MOST_CHUNKS = 8000


def rows_per_chunk(
    spec: DenseSpec, expected_rows: int | None, most_rows: int = MOST_PER_CHUNK
) -> int:
    """Chooses the rows of one chunk of an output by their bytes.

    Args:
        spec: The output.
        expected_rows: Int. Rows that the file will hold, or `None` if unknown. A small job gets
            small chunks, because the last one is allocated whole. A very long one gets larger ones.
        most_rows: Int. Rows in a chunk at most, unless the job is very long.
    """
    row_bytes = max(spec.row_bytes, 1)
    rows = min(_CHUNK_BYTES // row_bytes, most_rows)
    if expected_rows is not None:
        enough = max(expected_rows, _SMALLEST_CHUNK_BYTES // row_bytes)
        rows = max(min(rows, enough), math.ceil(expected_rows / _MOST_CHUNKS))
    return min(max(rows, 1), max((2**32 - 1) // row_bytes, 1))
