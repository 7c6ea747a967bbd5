"""A log for TensorBoard."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasext.common import optional_package


class FiguresLog:
    """Writes scalars and histograms to a folder, for TensorBoard to read.

    Uses `tf.summary.write`, on every backend: `tf.summary.scalar` needs TensorBoard itself.

    Args:
        log_dir: String or path-like. The folder.

    Raises:
        ImportError: If TensorFlow is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._tf: Any = optional_package("tensorflow", needed_by="`log_dir`")
        if keras.backend.backend() != "tensorflow":
            # TensorFlow would take the memory of the GPU, which the backend needs.
            with contextlib.suppress(RuntimeError):  # it has been used before
                self._tf.config.set_visible_devices([], "GPU")
        self._writer = self._tf.summary.create_file_writer(os.fspath(log_dir))

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        histograms: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Writes figures.

        Args:
            step: Int. Where they stand on the horizontal axis.
            scalars: Dict from tag to number. NaN is left out.
            histograms: Dict from tag to counts of shape `(bins,)` and edges of shape `(bins + 1,)`.
        """
        tf = self._tf
        with self._writer.as_default(step=step):
            for tag, value in scalars.items():
                if not np.isnan(value):
                    tf.summary.write(tag, np.float32(value), metadata=self._metadata("scalars"))
            for tag, (counts, edges) in histograms.items():
                # What TensorBoard's plugin takes: left, right and count of each bin.
                rows = np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float64)
                tf.summary.write(tag, rows, metadata=self._metadata("histograms"))
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def _metadata(self, plugin: str) -> Any:
        metadata = self._tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = plugin
        # DATA_CLASS_SCALAR or DATA_CLASS_TENSOR of TensorFlow's summary.proto.
        metadata.data_class = {"scalars": 1, "histograms": 2}[plugin]
        return metadata
