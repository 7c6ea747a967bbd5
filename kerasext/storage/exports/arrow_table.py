"""Prediction files as Arrow tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasext.common import optional_package
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.exports.exported_outputs import ExportedOutputs, label_codes
from kerasext.storage.reading.ragged_output import RaggedOutput

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 32 * 1024 * 1024


def arrow_table(exported: ExportedOutputs, origin: Mapping[str, Any]) -> pa.Table:
    """See `PredictionFile.to_arrow`."""
    pyarrow = optional_package("pyarrow", needed_by="to_arrow")
    batches = ArrowBatches(pyarrow, exported, origin)
    return pyarrow.Table.from_batches(list(batches.of(BATCH_BYTES)), batches.schema)


class ArrowBatches:
    """The rows of outputs as record batches.

    Args:
        pyarrow: The package.
        exported: The outputs.
        origin: JSON-serializable mapping, kept in the metadata of the schema.
        widen_float16: Bool. Whether float16 becomes float32. Defaults to `False`.

    Attributes:
        schema: The schema of all batches.

    Raises:
        TypeError: If Arrow has no type for an output.
    """

    def __init__(
        self,
        pyarrow: Any,
        exported: ExportedOutputs,
        origin: Mapping[str, Any],
        *,
        widen_float16: bool = False,
    ) -> None:
        self._pa = pyarrow
        self._exported = exported
        self._widen_float16 = widen_float16
        metadata = {"kerasext": json.dumps(origin, default=str)}
        self.schema = pyarrow.schema(self._fields(), metadata=metadata)

    def of(self, most_bytes: int) -> Iterator[pa.RecordBatch]:
        """Yields batches of so many bytes at most, or of one row."""
        for start, stop in self._exported.blocks(most_bytes):
            yield self._pa.record_batch(list(self._arrays(start, stop)), schema=self.schema)

    def _fields(self) -> Iterator[pa.Field]:
        for name, output in self._exported.outputs.items():
            arrow_type = self._number_type(name, output.dtype)
            for size in reversed(output.shape[1:]):
                # Arrow has no lists of the fixed size 0.
                arrow_type = self._pa.list_(arrow_type, size or -1)
            names = self._exported.class_names.get(name)
            metadata = names and {"class_names": json.dumps(np.asarray(names).tolist())}
            yield self._pa.field(name, arrow_type, metadata=metadata)
            if name in self._exported.label_names:
                texts = self._pa.dictionary(self._pa.int32(), self._pa.string())
                yield self._pa.field(f"{name}/name", texts)

    def _number_type(self, name: str, dtype: np.dtype[Any]) -> pa.DataType:
        try:
            return self._pa.from_numpy_dtype(np.float32 if self._is_widened(dtype) else dtype)
        except NotImplementedError as error:
            raise TypeError(
                f"Arrow has no type for output {name!r}; leave it out with `outputs`, or use "
                f"`to_pandas`. Received: dtype={dtype}"
            ) from error

    def _arrays(self, start: int, stop: int) -> Iterator[pa.Array]:
        for name, output in self._exported.outputs.items():
            rows = self._exported.read(name, start, stop)
            yield self._ragged(rows) if isinstance(rows, RaggedRows) else self._dense(rows)
            if name in self._exported.label_names:
                assert not isinstance(output, RaggedOutput)
                assert isinstance(rows, np.ndarray)
                codes, texts = label_codes(name, rows, self._exported.label_names[name])
                places = self._pa.array(codes, mask=codes < 0)
                texts = self._pa.array(texts, self._pa.string())
                yield self._pa.DictionaryArray.from_arrays(places, texts)

    def _is_widened(self, dtype: np.dtype[Any]) -> bool:
        return self._widen_float16 and dtype.kind == "f" and dtype.itemsize == 2

    def _numbers(self, values: np.ndarray) -> pa.Array:
        return self._pa.array(
            values.astype(np.float32) if self._is_widened(values.dtype) else values
        )

    def _dense(self, rows: np.ndarray) -> pa.Array:
        array = self._numbers(rows.reshape(-1))
        for axis in reversed(range(1, rows.ndim)):
            if rows.shape[axis]:
                array = self._pa.FixedSizeListArray.from_arrays(array, rows.shape[axis])
            else:
                splits = np.zeros(int(np.prod(rows.shape[:axis])) + 1, np.int32)
                array = self._pa.ListArray.from_arrays(splits, array)
        return array

    def _ragged(self, rows: RaggedRows) -> pa.Array:
        array = self._numbers(rows.values)
        for splits in reversed(rows.axis_splits()):
            # Which refuses those that are too large for 32 bits.
            offsets = self._pa.array(splits, self._pa.int32())
            array = self._pa.ListArray.from_arrays(offsets, array)
        return array
