"""Compressing chunks as HDF5's filters do, but outside HDF5, whose lock would stop every thread."""

from __future__ import annotations

import ctypes
import importlib
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import h5py
import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.output_names import find_outputs

Compression = str | Mapping[str, Any] | None

_GZIP = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_PLUGINS = {"zstd": "Zstd", "blosc2": "Blosc2", "bitshuffle": "Bitshuffle"}
_SHUFFLE, _DEFLATE = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE
_PLUGIN_FILES = {32015: "libh5zstd", 32026: "libh5blosc2", 32008: "libh5bshuf"}


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
        if compression["compression"] not in _PLUGIN_FILES:
            raise ValueError(
                f"A filter of hdf5plugin must be one of {sorted(_PLUGINS.values())}. "
                f"Received: compression={dict(compression)}"
            )
        _hdf5plugin()
    elif compression not in known:
        raise ValueError(
            f"`compression` must be one of {known}, or a filter of hdf5plugin. "
            f"Received: compression={compression!r}"
        )
    elif compression in _PLUGINS:
        _hdf5plugin()
    return compression


def compression_of(name: str, compression: Compression | Mapping[str, Compression]) -> Compression:
    """The choice for one output."""
    return compression.get(name) if _is_by_output(compression) else compression


def check_compressed(
    names: Iterable[str], compression: Compression | Mapping[str, Compression]
) -> None:
    """Raises `ValueError` if a choice is for an output that there is not."""
    if _is_by_output(compression):
        find_outputs(names, compression, argument="compression", groups=False)


def _is_by_output(
    compression: Compression | Mapping[str, Compression],
) -> TypeGuard[Mapping[str, Compression]]:
    return isinstance(compression, Mapping) and "compression" not in compression


def dataset_options(spec: DenseSpec, compression: Compression) -> dict[str, Any]:
    """The arguments of h5py's `create_dataset` for an output and a choice of compression."""
    if compression is None or not spec.row_bytes:
        return {}
    if compression == "auto" and spec.dtype.kind in "fc":
        # Probabilities shrink by an eighth, for thirty times what it costs to write them.
        return {}
    if compression in {"auto", "gzip"}:
        return _GZIP
    if isinstance(compression, str):
        options = dict(getattr(_hdf5plugin(), _PLUGINS[compression])())
        # Blosc2 and Bitshuffle shuffle on their own.
        return {**options, "shuffle": compression == "zstd"}
    return dict(compression)


class ChunkFilters:
    """The filters that a dataset was made with.

    Args:
        dataset: h5py dataset.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        properties = dataset.id.get_create_plist()
        self._filters = [
            properties.get_filter(number)[::2][:2] for number in range(properties.get_nfilters())
        ]

    def encode(self, chunk: np.ndarray) -> tuple[bytes | np.ndarray, int]:
        """Compresses a whole chunk.

        Returns:
            Tuple of the content to write and its filter mask.
        """
        if not self._filters:
            return chunk, 0
        content = chunk.tobytes()
        for filter_id, options in self._filters:
            content = _encode(filter_id, options, content)
        return content, 0

    def skip(self, chunk: np.ndarray) -> tuple[np.ndarray, int]:
        """The same without compressing: rows that are there stay as they are when more come."""
        return chunk, (1 << len(self._filters)) - 1


def _encode(filter_id: int, options: tuple[int, ...], content: bytes) -> bytes:
    if filter_id == _SHUFFLE:
        return _shuffle(options[0], content)
    if filter_id == _DEFLATE:
        return zlib.compress(content, level=options[0])
    return _run_plugin(_plugin(filter_id), options, content)


def _shuffle(itemsize: int, content: bytes) -> bytes:
    return np.frombuffer(content, np.uint8).reshape(-1, itemsize).T.tobytes()


def _hdf5plugin() -> Any:
    try:
        return importlib.import_module("hdf5plugin")
    except ImportError as error:
        raise ImportError(
            f"`compression` in {sorted(_PLUGINS)} needs hdf5plugin; pip install hdf5plugin"
        ) from error


class _FilterClass(ctypes.Structure):
    """HDF5's `H5Z_class2_t`."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("id", ctypes.c_int),
        ("encoder_present", ctypes.c_uint),
        ("decoder_present", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("can_apply", ctypes.c_void_p),
        ("set_local", ctypes.c_void_p),
        ("filter", ctypes.c_void_p),
    )


# HDF5's `H5Z_func_t`. A call through ctypes holds neither the lock of h5py nor that of Python.
_FilterFunction = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.c_uint,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_void_p),
)


@cache
def _plugin(filter_id: int) -> Any:
    folder = Path(_hdf5plugin().PLUGIN_PATH)
    (path,) = folder.glob(f"{_PLUGIN_FILES[filter_id]}.*")
    library = ctypes.CDLL(str(path))
    library.H5PLget_plugin_info.restype = ctypes.POINTER(_FilterClass)
    return _FilterFunction(library.H5PLget_plugin_info().contents.filter)


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    return libc


def _run_plugin(function: Any, options: tuple[int, ...], content: bytes) -> bytes:
    # A filter frees the buffer that it is given and leaves one of its own, both by malloc.
    buffer = ctypes.c_void_p(_libc().malloc(len(content)))
    if not buffer.value:
        raise MemoryError(f"no {len(content)} bytes to compress a chunk in")
    ctypes.memmove(buffer, content, len(content))
    size = ctypes.c_size_t(len(content))
    values = (ctypes.c_uint * len(options))(*options)
    try:
        length = function(
            0, len(options), values, len(content), ctypes.byref(size), ctypes.byref(buffer)
        )
        if not length:
            raise RuntimeError("a filter of hdf5plugin could not compress a chunk")
        return ctypes.string_at(buffer, length)
    finally:
        _libc().free(buffer)
