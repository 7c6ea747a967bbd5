"""The bytes of a new prediction file: all datasets and attributes that it will have, and no rows.

Nothing is created or changed later, because a kill in the middle of that would damage the file.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import h5py
import numpy as np

from kerasext._version import __version__
from kerasext.storage.columns import fixed_point
from kerasext.storage.columns.dense_spec import DenseSpec, NewColumn
from kerasext.storage.columns.dimension_scales import make_scales
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.columns.rows_per_chunk import rows_per_chunk
from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format.checksums import CHUNK_DTYPE, RowChecksums, file_checksum
from kerasext.storage.format.commit_record import CallState
from kerasext.storage.format.layout import (
    CLASS_NAMES,
    CLASS_OUTPUTS,
    FORMAT,
    FORMAT_VERSION,
    OUTPUTS,
    PLAIN_OUTPUTS,
    RAGGED_AXES,
    RECORD,
    SUMS,
    columns_of,
    head_and_output,
)
from kerasext.storage.format.sealed_table import write_texts
from kerasext.storage.writing.compression import Compression, compression_of, dataset_options

_PAGE_BYTES = 4096
_MOST_ATTRIBUTES = 1000

ClassNamesByHead = Sequence[str] | Mapping[str, Sequence[str]]


def content_of(
    specs: Mapping[str, Spec],
    *,
    expected_rows: int | None,
    attributes: Mapping[str, str | float],
    class_names: ClassNamesByHead | None,
    compression: Compression | Mapping[str, Compression],
    virtual: Mapping[str, h5py.VirtualLayout] | None = None,
) -> bytes:
    """Returns the bytes of a new file.

    It is made in memory, so that a full disk is met by a plain write. HDF5 crashes at the exit of
    the process if it can't write a file that it is making (h5py#914).

    Args:
        specs: Mapping from output name to its spec.
        expected_rows: Int. Rows that the file will hold, `None` if unknown.
        attributes: Mapping from name to string or number: attributes of the root besides those of
            this library, and `PLAIN_OUTPUTS` if there are such outputs.
        class_names: Names of the classes, or of those of each head.
        compression: As `check_compression` takes it.
        virtual: Mapping from output name to h5py's `VirtualLayout`, for outputs whose rows are in
            other files.
    """
    layouts = virtual or {}
    content = io.BytesIO()
    with _create_h5file(content) as h5file:
        # First, so that it lies within one page, and one write of it can't be torn.
        h5file.create_dataset(RECORD, data=_empty_state(specs).to_record())
        origin = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "kerasext_version": __version__,
            "h5py_version": h5py.__version__,
            "hdf5_version": h5py.version.hdf5_version,
        }
        for name, value in {**origin, **attributes}.items():
            is_text = isinstance(value, str)
            h5file.attrs[name] = _fixed_width([value]).reshape(()) if is_text else value
        for name, spec in specs.items():
            if name in layouts:
                _create_virtual(h5file, spec, layouts[name])
            else:
                for column in spec.columns(expected_rows):
                    _create_column(h5file, column, compression_of(name, compression))
            if isinstance(spec, RaggedSpec):
                h5file[name].attrs[RAGGED_AXES] = spec.axes
            names = _class_names_of(name, class_names)
            if names is not None:
                h5file[name].attrs[CLASS_NAMES] = _fixed_width(names)
        write_texts(h5file, OUTPUTS, sorted(specs, key=_place))
        make_scales(h5file, specs, columns_of(specs, attributes.get(PLAIN_OUTPUTS)))
    # The last page is written only as far as it is used, and counts in full.
    missing = -content.getbuffer().nbytes % _PAGE_BYTES
    return content.getvalue() + bytes(missing)


def _place(name: str) -> list[tuple[bool, str]]:
    """Where an output stands among the others: by name, in each group its outputs first."""
    *groups, last = name.split("/")
    return [*((True, group) for group in groups), (False, last)]


def _create_h5file(content: io.BytesIO) -> h5py.File:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, content)
    # HDF5 1.10 to 2.0 read such files; those of "latest" only the version that wrote them.
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    # A kill can tear a write where a page of memory ends. Small metadata do not cross such a place
    # if HDF5 allocates them in pages of the same size.
    creation.set_file_space_strategy(h5py.h5f.FSPACE_STRATEGY_PAGE, False, 1)
    creation.set_file_space_page_size(_PAGE_BYTES)
    # HDF5 keeps so many attributes in the header, whose damage it notices. The heaps and trees that
    # it uses for more can make it crash.
    creation.set_attr_phase_change(_MOST_ATTRIBUTES, 0)
    flags = h5py.h5f.ACC_TRUNC
    return h5py.File(h5py.h5f.create(b"predictions", flags, fcpl=creation, fapl=access))


def _empty_state(specs: Mapping[str, Spec]) -> CallState:
    columns = [column for spec in specs.values() for column in spec.columns(None)]
    checksums = {column.spec.name: RowChecksums(0, 0) for column in columns}
    return CallState(rows_checksum=file_checksum(checksums))


def _create_column(h5file: h5py.File, column: NewColumn, compression: Compression) -> None:
    spec = column.spec
    h5ds = h5file.create_dataset(
        spec.name,
        shape=(column.length, *spec.row_shape),
        # HDF5 has no chunks for a fixed axis of length 0.
        maxshape=(None, *(length or None for length in spec.row_shape)),
        chunks=(
            rows_per_chunk(spec, column.expected_length, column.most_per_chunk),
            *(max(length, 1) for length in spec.row_shape),
        ),
        dtype=spec.h5_dtype,
        **dataset_options(spec, compression),
    )
    _set_fixed_point(h5ds, spec)
    h5file.create_dataset(
        f"{SUMS}/{spec.name}",
        shape=(0,),
        maxshape=(None,),
        chunks=(_PAGE_BYTES // CHUNK_DTYPE.itemsize,),
        dtype=CHUNK_DTYPE,
    )


def _create_virtual(h5file: h5py.File, spec: Spec, layout: h5py.VirtualLayout) -> None:
    assert isinstance(spec, DenseSpec)  # HDF5 has no virtual datasets of ragged rows
    # HDF5 returns this value, and no error, for rows of a file that it does not find.
    fill = None
    if spec.scale is not None or spec.dtype.kind == "i":
        limits = np.iinfo(spec.dtype)
        fill = spec.dtype.type(limits.min if spec.scale is None else limits.max)
    elif spec.dtype.kind in "fc":
        fill = spec.dtype.type(np.nan)
    _set_fixed_point(h5file.create_virtual_dataset(spec.name, layout, fillvalue=fill), spec)


def _set_fixed_point(h5ds: h5py.Dataset, spec: DenseSpec) -> None:
    if spec.scale is not None:
        h5ds.attrs.update(fixed_point.attributes_for(spec.dtype))


def _class_names_of(name: str, class_names: ClassNamesByHead | None) -> Sequence[str] | None:
    head, last = head_and_output(name)
    if last not in CLASS_OUTPUTS or class_names is None:
        return None
    if isinstance(class_names, Mapping):
        return class_names.get(head)
    return None if head else class_names


def _fixed_width(texts: Sequence[str]) -> np.ndarray:
    # Text of variable length stands in heaps that have no checksum. HDF5 1.14 reads some damaged
    # ones for ever.
    encoded = [text.encode() for text in texts]
    width = max(map(len, encoded), default=0)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(width, 1)))
