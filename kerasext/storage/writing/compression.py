"""The choice of a compression, and the filters of a dataset."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import h5py
import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.output_names import find_outputs

Compression = str | Mapping[str, Any] | None

_GZIP = {"compression": "gzip", "compression_opts": 1}
_SHUFFLE, _DEFLATE = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE
# The names of the filters in hdf5plugin, and the numbers that the HDF Group has given them.
_PLUGINS = {"zstd": "Zstd", "blosc2": "Blosc2", "bitshuffle": "Bitshuffle"}
_PLUGIN_NUMBERS = {32015, 32026, 32008}


def check_compression(
    compression: Compression | Mapping[str, Compression],
) -> Compression | Mapping[str, Compression]:
    """Checks a choice of compression, and returns it.

    Args:
        compression: `None`, `"auto"`, `"gzip"`, `"zstd"`, `"blosc2"`, `"bitshuffle"`, or one of
            hdf5plugin's filters of the last three kinds, such as `hdf5plugin.Zstd(clevel=3)`; or a
            mapping from output name to one of these.

    Raises:
        ValueError: If it is something else.
        ImportError: If it needs hdf5plugin, which is not installed.
    """
    known = [None, "auto", "gzip", *_PLUGINS]
    if _is_by_output(compression):
        for choice in compression.values():
            check_compression(choice)
    elif isinstance(compression, Mapping):
        if compression["compression"] not in _PLUGIN_NUMBERS:
            raise ValueError(
                f"A filter of hdf5plugin must be one of {sorted(_PLUGINS.values())}. "
                f"Received: compression={dict(compression)}"
            )
        _load_hdf5plugin()
    elif compression not in known:
        raise ValueError(
            f"`compression` must be one of {known}, or a filter of hdf5plugin. "
            f"Received: compression={compression!r}"
        )
    elif compression in _PLUGINS:
        _load_hdf5plugin()
    return compression


def check_compressed_outputs(
    names: Iterable[str], compression: Compression | Mapping[str, Compression]
) -> None:
    """Raises `ValueError` if a choice is for an output that is not among `names`."""
    if _is_by_output(compression):
        find_outputs(names, compression, argument="compression", groups=False)


def compression_of(name: str, compression: Compression | Mapping[str, Compression]) -> Compression:
    """Returns the choice for one output."""
    return compression.get(name) if _is_by_output(compression) else compression


def dataset_options(spec: DenseSpec, compression: Compression) -> dict[str, Any]:
    """Returns the arguments of h5py's `create_dataset` for an output and its compression."""
    if compression is None or not spec.row_bytes:
        return {}
    if compression == "auto" and spec.dtype.kind in "fc":
        # Gzip saves an eighth of probabilities, and takes thirty times as long as writing them.
        return {}
    if compression in {"auto", "gzip"}:
        return {**_GZIP, "shuffle": spec.dtype.itemsize > 1}
    if isinstance(compression, str):
        options = dict(getattr(_load_hdf5plugin(), _PLUGINS[compression])())
        # Blosc2 and Bitshuffle shuffle on their own.
        return {**options, "shuffle": compression == "zstd"}
    return dict(compression)


class ChunkFilters:
    """The filters that a dataset was made with.

    Args:
        h5ds: h5py dataset.

    Attributes:
        all_skipped: Int. The filter mask of a chunk that is stored without any of them.
        run_in_python: Bool. Whether `encode` knows all of them. HDF5 must run others itself.

    Raises:
        ImportError: If one is a filter of hdf5plugin, which is not installed.
    """

    def __init__(self, h5ds: h5py.Dataset) -> None:
        properties = h5ds.id.get_create_plist()
        self._filters: list[tuple[int, tuple[int, ...]]] = []
        for number in range(properties.get_nfilters()):
            filter_number, _flags, options, _name = properties.get_filter(number)
            self._filters.append((filter_number, options))
        numbers = {number for number, _ in self._filters}
        self.all_skipped = (1 << len(self._filters)) - 1
        self.run_in_python = numbers <= {_SHUFFLE, _DEFLATE}
        if numbers & _PLUGIN_NUMBERS:
            _load_hdf5plugin()  # else HDF5 knows the filter only if it has been installed for it

    def encode(self, chunk: np.ndarray) -> bytes | np.ndarray:
        """Runs the filters as HDF5 does, but without the lock of h5py, which stops other threads.

        Args:
            chunk: Array of a whole chunk.

        Returns:
            The bytes to store; the array itself if there are no filters.
        """
        if not self._filters:
            return chunk
        content = chunk.tobytes()
        for number, options in self._filters:
            if number == _SHUFFLE:
                itemsize = options[0]
                content = np.frombuffer(content, np.uint8).reshape(-1, itemsize).T.tobytes()
            else:
                content = zlib.compress(content, level=options[0])
        return content


def _is_by_output(
    compression: Compression | Mapping[str, Compression],
) -> TypeGuard[Mapping[str, Compression]]:
    return isinstance(compression, Mapping) and "compression" not in compression


def _load_hdf5plugin() -> Any:
    try:
        return importlib.import_module("hdf5plugin")
    except ImportError as error:
        raise ImportError(
            f"`compression` in {sorted(_PLUGINS)} needs hdf5plugin; pip install hdf5plugin"
        ) from error
