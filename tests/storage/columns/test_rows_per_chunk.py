import numpy as np
import pytest

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.rows_per_chunk import rows_per_chunk

KIB, MIB, GIB = 2**10, 2**20, 2**30


def spec_of(row_bytes):
    """An output with so many bytes in a row."""
    return DenseSpec("x", (row_bytes,), np.dtype("u1"))


@pytest.mark.parametrize("row_bytes", [1, 3, 4, 40, 4000, 100_000, MIB, 3 * MIB, 4 * GIB - 1])
@pytest.mark.parametrize("expected_rows", [None, 0, 1, 70, 10_000, 10**6, 10**9])
def test_chunk_is_neither_tiny_nor_huge(row_bytes, expected_rows):
    """A chunk is some 16 KiB to 1 MiB, less for short jobs of one, more for what needs more."""
    rows = rows_per_chunk(spec_of(row_bytes), expected_rows)
    size = rows * row_bytes
    assert rows >= 1
    assert size < 4 * GIB
    assert size + row_bytes > 16 * KIB
    needed = 0 if expected_rows is None else -(-expected_rows // 8000)
    assert size <= max(MIB, row_bytes, needed * row_bytes)


@pytest.mark.parametrize("row_bytes", [MIB // 2 + 1, MIB, MIB + 1, GIB])
@pytest.mark.parametrize("expected_rows", [None, 1, 1000])
def test_wide_rows_get_a_chunk_each(row_bytes, expected_rows):
    """A row of more than half a chunk is a chunk."""
    assert rows_per_chunk(spec_of(row_bytes), expected_rows) == 1


@pytest.mark.parametrize("expected_rows", [1, 70, 5000])
def test_small_jobs_get_small_chunks(expected_rows):
    """A short job doesn't allocate a chunk for many times its rows."""
    size = 40 * rows_per_chunk(spec_of(40), expected_rows)
    assert size <= max(16 * KIB, 40 * expected_rows)


@pytest.mark.parametrize("row_bytes", [1, 40, MIB])
@pytest.mark.parametrize("expected_rows", [10**8, 10**9])
def test_long_jobs_get_few_chunks(row_bytes, expected_rows):
    """However long the job, its index of chunks stays small, up to HDF5's limit on a chunk."""
    rows = rows_per_chunk(spec_of(row_bytes), expected_rows)
    assert expected_rows / rows <= 8000 or (rows + 1) * row_bytes > 4 * GIB - 1


@pytest.mark.parametrize("expected_rows", [None, 0, 70, 10**9])
def test_rows_without_bytes(expected_rows):
    """An output of width zero has chunks as well."""
    assert 1 <= rows_per_chunk(DenseSpec("x", (0,), np.dtype("f4")), expected_rows) < 2**32
