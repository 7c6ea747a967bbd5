"""Rows of one output on their way into its dataset, a whole chunk at a time."""

import zlib

import h5py
import numpy as np
from h5py._objects import with_phil

from kerasext.storage.format.checksums import CHUNK_DTYPE, RowChecksums, checksum
from kerasext.storage.writing.compression import ChunkFilters

# h5py 3.14 forgets its lock here, and HDF5 dies of two threads at once. Taken by a `with` of
# Python's, Ctrl-C could leave it locked.
_write_direct_chunk = with_phil(h5py.h5d.DatasetID.write_direct_chunk)


class ChunkWriter:
    """Appends rows to a dataset by direct writes of whole chunks.

    A write through h5py's slicing costs 60 times a direct one for small steps, so rows gather in
    one reused block of the size of a chunk.

    Args:
        dataset: Resizable h5py dataset of an open file.
        rows: Int. Rows that are there to stay; what follows them is overwritten.
        sums: Resizable h5py dataset for a checksum of each chunk, or `None` for none.
    """

    def __init__(self, dataset: h5py.Dataset, rows: int, sums: h5py.Dataset | None = None) -> None:
        self._path = dataset.name.lstrip("/")
        self._h5id = dataset.id
        self._row_shape = dataset.shape[1:]
        self._chunk_rows = dataset.chunks[0]
        self._block = np.zeros(dataset.chunks[:1] + self._row_shape, dtype=dataset.dtype.str)
        self._bytes = self._block.reshape(-1).view(np.uint8)
        self._row_bytes = self._bytes.size // self._chunk_rows
        self._extent = dataset.shape[0]
        self._filters = ChunkFilters(dataset)
        self._sums = None if sums is None else ChunkWriter(sums, rows // self._chunk_rows)
        self._raw_chunk = -1
        filled = rows % self._chunk_rows
        of_chunks = 0 if sums is None else checksum(sums[: rows // self._chunk_rows])
        of_rest = 0
        if filled:
            self._block[:filled] = dataset[rows - filled : rows]
            of_rest = checksum(self._block[:filled])
            place = self._h5id.get_chunk_info_by_coord(self._coordinates(rows - filled))
            # Of a chunk that was never written HDF5 gives no mask, but whatever was in memory.
            if place.byte_offset is not None and place.filter_mask:
                self._raw_chunk = rows - filled
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
                new = self._bytes[filled * self._row_bytes : end * self._row_bytes]
                of_rest = zlib.crc32(new.data, of_rest)
            if end == self._chunk_rows:
                self._write(rows - filled, chunk, end)
                of_chunks, of_rest = self._store_checksum(of_rest, of_chunks), 0
            self._end = rows + len(piece), of_chunks, of_rest
            start += len(piece)

    def commit(self, rows: int, *, last: bool = False) -> None:
        """Writes the last, partly filled chunk, so that the first `rows` rows are in the file.

        Rows beyond `rows` were appended in a step that was interrupted before every output had
        them.

        Args:
            rows: Int. Rows to be kept.
            last: Bool. Whether no more rows will come, so that the chunk may be compressed.
        """
        filled = rows % self._chunk_rows
        first = rows - filled
        if filled and first == self.rows - self.rows % self._chunk_rows:
            self._write_partly(first, filled, last=last)
        if last and filled:
            self._store_checksum(self._checksums_at(rows).rest)
        if self._sums is not None:
            self._sums.commit(self._sums.rows)

    def checksums(self, rows: int) -> dict[str, RowChecksums]:
        """The checksums of the first rows, by the path of the dataset.

        Args:
            rows: Int. All rows, or all but those of the last `append`.
        """
        return {self._path: self._checksums_at(rows)}

    def _checksums_at(self, rows: int) -> RowChecksums:
        count, of_chunks, of_rest = self._end if rows == self.rows else self._end_before
        assert rows == count
        return RowChecksums(of_chunks, of_rest)

    def _write_partly(self, first: int, filled: int, *, last: bool) -> None:
        self._block[filled:] = np.zeros((), self._block.dtype)
        if not last:
            # Compressed anew at each commit, a kill or a reader could meet it half written, and the
            # space that it leaves is lost. It stays uncompressed, also when it has been filled.
            self._raw_chunk = first
        self._write(first, self._block, filled)

    def exceeds(self, rows: int) -> bool:
        """Whether the dataset is longer than so many rows."""
        return bool(self._h5id.shape[0] > rows)

    def trim(self, rows: int) -> None:
        """Takes off what follows the first `rows` rows.

        Only at the end, for the dataset may have readers until then, and in an h5py file by which
        nothing was written: HDF5 reads the chunk that it cuts, as compressed even if it was written
        as it is, and crashes.
        """
        if self.exceeds(rows):
            self._h5id.set_extent((rows, *self._row_shape))
        self._extent = min(self._extent, rows)

    def _store_checksum(self, value: int, before: int = 0) -> int:
        """Stores the checksum of a chunk; returns that of the stored ones."""
        stored = np.array([value], CHUNK_DTYPE)
        if self._sums is not None:
            self._sums.append(stored)
        return checksum(stored, before)

    def _write(self, first: int, chunk: np.ndarray, rows: int) -> None:
        if first + rows > self._extent:
            # In this order: Ctrl-C between the two must not make it shorter than we believe.
            self._h5id.set_extent((first + rows, *self._row_shape))
            self._extent = first + rows
        if chunk.size:
            is_raw = first == self._raw_chunk
            content, mask = (self._filters.skip if is_raw else self._filters.encode)(chunk)
            _write_direct_chunk(self._h5id, self._coordinates(first), content, mask)

    def _coordinates(self, row: int) -> tuple[int, ...]:
        return (row,) + (0,) * len(self._row_shape)
