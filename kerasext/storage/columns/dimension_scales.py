"""What the axes of the outputs are called: dimension scales, which xarray and netCDF know."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import h5py
import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format.layout import (
    CLASS,
    CLASS_NAMES,
    IDS,
    ROW,
    head_and_output,
    output_path,
    with_groups,
)

COORDINATES = "coordinates"
"""The attribute of the file that names what are coordinates of the rows for xarray, too."""

_MOST_AXES = 3000
# What netCDF writes for a dimension that has a length and no values.
_NO_VALUES = "This is a netCDF dimension but not a netCDF variable.{:10d}"
_BY_CLASS = ("probabilities", "prediction_set")  # outputs that always have classes last
_MARK, _SCALE = "CLASS", b"DIMENSION_SCALE"


def has_classes_last(name: str, row_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the last axis of an output is that of the classes.

    Args:
        name: String. The output.
        row_shapes: Mapping from output name to the shape of a row, of all outputs whose rows have
            one shape.
    """
    # Labels of tokens may be as many as there are classes: those of several labels a row have the
    # shape of their probabilities, or of their prediction set.
    head, last = head_and_output(name)
    paths = (output_path(head, output) for output in _BY_CLASS)
    shape = next((row_shapes[path] for path in paths if path in row_shapes), ())
    is_one = last in {*_BY_CLASS, "labels", "confidence", "abstained"}
    return is_one and shape != () and row_shapes.get(name) == shape


def axis_names(specs: Mapping[str, Spec], columns: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The names of the axes, as paths of the scales.

    Args:
        specs: The outputs by name.
        columns: Names of the columns beside the outputs.

    Returns:
        Dict from output name to a tuple with a string for each axis: `"row"` for the first one;
        `"class"`, or `"head/class"`, for the classes; `"<output>_axis_1"` and so on for others.
        A name that an output or a group has gets underscores, except `"row"` if the file has the
        numbers of the rows. Outputs whose rows differ in shape have no names.
    """
    row_shapes = {
        name: spec.row_shape for name, spec in specs.items() if isinstance(spec, DenseSpec)
    }
    taken = with_groups(specs)
    row = ROW if ROW in columns else _untaken(ROW, taken)
    names = {}
    for name, shape in row_shapes.items():
        axes = [_untaken(f"{name}_axis_{number}", taken) for number in range(1, len(shape) + 1)]
        if has_classes_last(name, row_shapes):
            axes[-1] = _untaken(output_path(head_and_output(name)[0], CLASS), taken)
        names[name] = (row, *axes)
    return names


def make_scales(file: h5py.File, specs: Mapping[str, Spec], columns: Collection[str]) -> None:
    """Makes the scales of a new file, and attaches them to its outputs.

    Outputs of more than 3000 axes in all get none: scales for those take most of a second, and the
    list of all that a scale is attached to must fit into the 64 KiB of its header.

    Args:
        file: The file, with all outputs and the names of their classes.
        specs: The outputs by name.
        columns: Names of the columns beside the outputs.
    """
    names = axis_names(specs, columns)
    if sum(map(len, names.values())) > _MOST_AXES:
        return
    row_shapes = {name: file[name].shape[1:] for name in names}
    scales: dict[str, h5py.Dataset] = {}
    for name, axes in names.items():
        for number, axis in enumerate(axes):
            if axis not in scales:
                output = file[name]
                if number == 0:
                    scales[axis] = _scale_of_rows(file, axis)
                elif number == len(axes) - 1 and has_classes_last(name, row_shapes):
                    scales[axis] = _scale_of_classes(file, axis, output)
                else:
                    scales[axis] = _scale_without_values(file, axis, output.shape[number])
            if axis != name:
                file[name].dims[number].attach_scale(scales[axis])
    if IDS in names and IDS in columns:
        file.attrs[COORDINATES] = np.bytes_(IDS.encode())


def is_scale(dataset: h5py.Dataset) -> bool:
    """Whether a dataset is a scale; no text of variable length is read to find out."""
    if _MARK not in dataset.attrs:
        return False
    mark = dataset.attrs.get_id(_MARK)
    is_short_text = mark.shape == () and mark.dtype.kind == "S" and mark.dtype.itemsize <= 16
    return is_short_text and bool(dataset.attrs[_MARK] == _SCALE)


def _untaken(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _scale_of_rows(file: h5py.File, axis: str) -> h5py.Dataset:
    if axis in file:  # the numbers of the rows
        file[axis].make_scale(axis)
        return file[axis]
    return _scale_without_values(file, axis, 0, dtype=np.int64, maxshape=(None,))


def _scale_of_classes(file: h5py.File, axis: str, output: h5py.Dataset) -> h5py.Dataset:
    head, _ = head_and_output(output.name[1:])
    paths = (output_path(head, name) for name in _BY_CLASS)
    names: Any = next(file[path].attrs.get(CLASS_NAMES, ()) for path in paths if path in file)
    # Text of variable length, which both of xarray's engines read as text, has no null characters.
    if not len(names) or len(names) != output.shape[-1] or any(b"\0" in name for name in names):
        return _scale_without_values(file, axis, output.shape[-1])
    texts = [name.decode() for name in names]
    scale = file.create_dataset(axis, data=texts, dtype=h5py.string_dtype("utf-8"))
    scale.make_scale(head_and_output(axis)[1])
    return scale


def _scale_without_values(
    file: h5py.File, axis: str, length: int, *, dtype: Any = np.int8, **options: Any
) -> h5py.Dataset:
    # Never written, and so without a byte of data.
    scale = file.create_dataset(axis, shape=(length,), dtype=dtype, **options)
    scale.make_scale(_NO_VALUES.format(length))
    return scale
