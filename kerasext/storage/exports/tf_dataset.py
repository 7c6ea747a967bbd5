"""Prediction files as datasets of TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasext.common import optional_package
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.exports.exported_outputs import ExportedOutputs
from kerasext.storage.reading.dense_output import DenseOutput
from kerasext.storage.reading.ragged_output import RaggedOutput

if TYPE_CHECKING:
    import tensorflow as tf

# Many batches are cut from one read, for each read may decompress a whole chunk.
_BLOCK_BYTES = 8 * 1024 * 1024


def tf_dataset(exported: ExportedOutputs, *, batch_size: int) -> tf.data.Dataset:
    """See `PredictionFile.to_tf_dataset`."""
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    tensorflow = optional_package("tensorflow", needed_by="to_tf_dataset")

    def batches() -> Iterator[dict[str, Any]]:
        for start, stop in exported.blocks(_BLOCK_BYTES, multiple=batch_size):
            block = {name: exported.read(name, start, stop) for name in exported.outputs}
            for first in range(0, stop - start, batch_size):
                rows = slice(first, first + batch_size)
                yield {name: _tensor(tensorflow, block[name][rows]) for name in block}

    signature = {name: _spec(tensorflow, name, output) for name, output in exported.outputs.items()}
    dataset = tensorflow.data.Dataset.from_generator(batches, output_signature=signature)
    # Which gives it a length.
    count = tensorflow.data.experimental.assert_cardinality(math.ceil(exported.rows / batch_size))
    return dataset.apply(count)


def _spec(tensorflow: Any, name: str, output: DenseOutput | RaggedOutput) -> Any:
    shape, dtype = (None, *output.shape[1:]), tensorflow.string
    try:
        if output.dtype.kind != "U":
            dtype = tensorflow.as_dtype(output.dtype.newbyteorder("="))
    except TypeError as error:
        raise TypeError(
            f"TensorFlow has no type for output {name!r}; leave it out with `outputs`. "
            f"Received: dtype={output.dtype}"
        ) from error
    if isinstance(output, RaggedOutput):
        return tensorflow.RaggedTensorSpec(shape, dtype, ragged_rank=output.ndim - 1)
    return tensorflow.TensorSpec(shape, dtype)


def _tensor(tensorflow: Any, rows: np.ndarray | RaggedRows) -> Any:
    if isinstance(rows, RaggedRows):
        values = tensorflow.constant(_encoded(rows.values))
        return tensorflow.RaggedTensor.from_nested_row_splits(values, rows.axis_splits())
    return tensorflow.constant(_encoded(rows))


def _encoded(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "U":
        return values
    # NumPy 1 makes floats of no text at all.
    return np.char.encode(values, "utf-8").astype(np.bytes_)
