"""Appending rows to one dataset, a whole chunk at a time."""

from __future__ import annotations

import zlib

import h5py
import numpy as np
from h5py._objects import with_phil

from kerasext.storage.format.checksums import CHUNK_DTYPE, RowChecksums, checksum
from kerasext.storage.writing.compression import ChunkFilters

# h5py before 3.16 forgets its lock here (h5py#2764), and HDF5 crashes if two threads call it at
# once. `with phil:` would not do: Ctrl-C could leave it locked.
_write_direct_chunk = with_phil(h5py.h5d.DatasetID.write_direct_chunk)


class ChunkWriter:
    """Appends rows to a dataset by writing whole chunks.

    Rows gather in one reused block of the size of a chunk, because a write through h5py's slicing
    costs 60 times as much as a direct one for small steps.

    Args:
        h5ds: Resizable h5py dataset of an open file.
        rows: Int. Rows that stay; what follows them is overwritten.
        h5sums: Resizable h5py dataset for a checksum of each chunk. Defaults to `None`: none are
            stored.
    """

    def __init__(self, h5ds: h5py.Dataset, rows: int, h5sums: h5py.Dataset | None = None) -> None:
        self._path = h5ds.name.lstrip("/")
        self._h5id = h5ds.id
        self._row_shape = h5ds.shape[1:]
        self._chunk_rows = h5ds.chunks[0]
        self._block = np.zeros(h5ds.chunks[:1] + self._row_shape, dtype=h5ds.dtype.str)
        self._block_bytes = self._block.reshape(-1).view(np.uint8)
        self._row_bytes = self._block_bytes.size // self._chunk_rows
        self._extent = h5ds.shape[0]
        self._filters = ChunkFilters(h5ds)
        chunks, filled = divmod(rows, self._chunk_rows)
        self._sums = None if h5sums is None else ChunkWriter(h5sums, chunks)
        # The first row of the chunk that stays uncompressed, so that it can be rewritten in place.
        self._raw_chunk = -1
        of_chunks = 0 if h5sums is None else checksum(h5sums[:chunks])
        of_rest = 0
        if filled:
            self._block[:filled] = h5ds[rows - filled : rows]
            of_rest = checksum(self._block[:filled])
            place = self._h5id.get_chunk_info_by_coord(self._coordinates(rows - filled))
            # For a chunk that was never written HDF5 1.14 has no offset, and returns a random mask.
            if place.byte_offset is not None and place.filter_mask:
                self._raw_chunk = rows - filled
        # Where no killed writer has left a chunk: everywhere, or in the chunk that was just read.
        self._is_empty = not rows and not self._h5id.get_num_chunks()
        self._read_chunk = rows - filled if filled else -1
        # Together: an interruption between two assignments would part them.
        self._end = self._end_before = (rows, of_chunks, of_rest)

    @property
    def rows(self) -> int:
        """Rows that were appended, those of earlier writers included."""
        return self._end[0]

    def append(self, array: np.ndarray) -> None:
        """Adds the rows of an array of the dataset's dtype and row shape."""
        self._end_before = self._end
        start = 0
        while start < len(array):
            rows, of_chunks, of_rest = self._end
            filled = rows % self._chunk_rows
            piece = array[start : start + self._chunk_rows - filled]
            end = filled + len(piece)
            if len(piece) == self._chunk_rows:
                chunk = np.ascontiguousarray(piece)
                of_rest = checksum(chunk)
            else:
                chunk = self._block
                chunk[filled:end] = piece
                new = self._block_bytes[filled * self._row_bytes : end * self._row_bytes]
                of_rest = zlib.crc32(new.data, of_rest)
            if end == self._chunk_rows:
                self._write(rows - filled, chunk, end)
                of_chunks, of_rest = self._store_checksum(of_rest, of_chunks), 0
            self._end = rows + len(piece), of_chunks, of_rest
            start += len(piece)

    def commit(self, rows: int, *, last: bool = False) -> None:
        """Writes the partly filled chunk, so that the first `rows` rows are in the file.

        Args:
            rows: Int. Rows to keep. There are more if a step was interrupted after this dataset had
                its rows and before another one had them.
            last: Bool. Whether no more rows will come, so that the chunk may be compressed.
        """
        filled = rows % self._chunk_rows
        first = rows - filled
        if filled and first == self.rows - self.rows % self._chunk_rows:
            self._write_partly_filled(first, filled, last=last)
        if last and filled:
            self._store_checksum(self._checksums_at(rows).rest)
        if self._sums is not None:
            self._sums.commit(self._sums.rows)

    def checksums(self, rows: int) -> dict[str, RowChecksums]:
        """Returns the checksums of the first rows, by the path of the dataset.

        Args:
            rows: Int. All rows, or all but those of the last `append`.
        """
        return {self._path: self._checksums_at(rows)}

    def exceeds(self, rows: int) -> bool:
        """Whether the dataset is longer than `rows` rows."""
        return bool(self._h5id.shape[0] > rows)

    def trim(self, rows: int) -> None:
        """Makes the dataset no longer than `rows` rows.

        Call it at the end only, because readers may have the dataset open until then, and in an
        h5py file in which nothing was written since it was opened: HDF5 reads the chunk that it
        cuts. HDF5 1.14 still has the filter mask from before a direct write, takes the chunk for
        compressed although it is not, and fails or crashes.
        """
        if self.exceeds(rows):
            self._h5id.set_extent((rows, *self._row_shape))
        self._extent = min(self._extent, rows)

    def _checksums_at(self, rows: int) -> RowChecksums:
        count, of_chunks, of_rest = self._end if rows == self.rows else self._end_before
        assert rows == count
        return RowChecksums(of_chunks, of_rest)

    def _store_checksum(self, value: int, before: int = 0) -> int:
        """Stores the checksum of a chunk; returns the checksum of all stored ones."""
        stored = np.array([value], CHUNK_DTYPE)
        if self._sums is not None:
            self._sums.append(stored)
        return checksum(stored, before)

    def _write_partly_filled(self, first: int, filled: int, *, last: bool) -> None:
        self._block[filled:] = np.zeros((), self._block.dtype)
        # HDF5 1.14 reads a chunk that it changes in part, and fails if a kill has torn it.
        is_safe = self._is_empty or first == self._read_chunk or self._filters.run_in_python
        if not (last and is_safe):
            # Compressed anew at each commit, a kill or a reader could meet it half written, and the
            # space that it leaves is lost. It stays uncompressed when it has been filled, too.
            self._raw_chunk = first
        self._write(first, self._block, filled)

    def _write(self, first: int, chunk: np.ndarray, rows: int) -> None:
        """Writes a chunk whose first `rows` rows are filled."""
        if first + rows > self._extent:
            # In this order: Ctrl-C between the two must not make it shorter than we believe.
            self._h5id.set_extent((first + rows, *self._row_shape))
            self._extent = first + rows
        if not chunk.size:
            return
        if first == self._raw_chunk:
            self._write_direct(first, chunk, self._filters.all_skipped)
        elif self._filters.run_in_python:
            self._write_direct(first, self._filters.encode(chunk), 0)
        else:
            self._write_by_hdf5(first, chunk[:rows])

    def _write_direct(self, first: int, content: bytes | np.ndarray, mask: int) -> None:
        _write_direct_chunk(self._h5id, self._coordinates(first), content, mask)

    def _write_by_hdf5(self, first: int, rows: np.ndarray) -> None:
        """Writes rows through the selection of a dataset, so that HDF5 runs the filters."""
        places = self._h5id.get_space()
        places.select_hyperslab(self._coordinates(first), rows.shape)
        # The dtype of the file, so that HDF5 converts nothing.
        self._h5id.write(h5py.h5s.create_simple(rows.shape), places, rows, self._h5id.get_type())

    def _coordinates(self, row: int) -> tuple[int, ...]:
        return (row,) + (0,) * len(self._row_shape)
