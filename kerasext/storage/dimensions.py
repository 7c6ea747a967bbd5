"""What the axes of the outputs are called: dimension scales, which xarray and netCDF know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from kerasext.storage.layout import CLASS, CLASS_NAMES, IDS, ROW, with_groups
from kerasext.storage.output_spec import OutputSpec
from kerasext.storage.step_specs import Spec

COORDINATES = "coordinates"
"""The attribute of the file that names what are coordinates of the rows for xarray, too."""

_MOST_AXES = 3000
# What netCDF writes for a dimension that has a length and no values.
_NO_VALUES = "This is a netCDF dimension but not a netCDF variable.{:10d}"
_MARK, _SCALE = "CLASS", b"DIMENSION_SCALE"


def has_classes_last(name: str, row_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the last axis of an output is that of the classes.

    Args:
        name: String. The output.
        row_shapes: Mapping from output name to the shape of a row, of all outputs whose rows have
            one shape.
    """
    # Labels of tokens may be as many as there are classes: those of several labels a row have the
    # shape of their probabilities.
    head, slash, last = name.rpartition("/")
    shape = row_shapes.get(f"{head}{slash}probabilities", ())
    is_one = last in {"probabilities", "labels", "confidence"}
    return is_one and shape != () and row_shapes.get(name) == shape


def axis_names(specs: Mapping[str, Spec]) -> dict[str, tuple[str, ...]]:
    """The names of the axes, as paths of the scales.

    Args:
        specs: The outputs by name.

    Returns:
        Dict from output name to a tuple with a string for each axis: `"row"` for the first one;
        `"class"`, or `"head/class"`, for the classes; `"<output>_axis_1"` and so on for others.
        Only the first name can be that of an output, of the numbers of the rows. Outputs whose rows
        differ in shape have none.
    """
    row_shapes = {
        name: spec.row_shape for name, spec in specs.items() if isinstance(spec, OutputSpec)
    }
    taken = with_groups(specs)
    names = {}
    for name, shape in row_shapes.items():
        axes = [_untaken(f"{name}_axis_{number}", taken) for number in range(1, len(shape) + 1)]
        head, slash, _ = name.rpartition("/")
        classes = f"{head}{slash}{CLASS}"
        if has_classes_last(name, row_shapes) and classes not in taken:
            axes[-1] = classes
        names[name] = (ROW, *axes)
    return names


def make_scales(file: h5py.File, specs: Mapping[str, Spec]) -> None:
    """Makes the scales of a new file, and attaches them to its outputs.

    Outputs of more than 3000 axes in all get none: scales for those take most of a second, and the
    list of all that a scale is attached to must fit into the 64 KiB of its header.

    Args:
        file: The file, with all outputs and the names of their classes.
        specs: The outputs by name.
    """
    names = axis_names(specs)
    if sum(map(len, names.values())) > _MOST_AXES:
        return
    scales: dict[str, h5py.Dataset] = {}
    for name, axes in names.items():
        for number, axis in enumerate(axes):
            if axis not in scales:
                scales[axis] = _make_scale(file, axis, file[name].shape[number])
            if axis != name:
                file[name].dims[number].attach_scale(scales[axis])
    if IDS in names:
        file.attrs[COORDINATES] = np.bytes_(IDS.encode())


def mark_as_text(dataset: h5py.Dataset) -> None:
    """Makes xarray read a dataset of bytes as text."""
    dataset.attrs["_Encoding"] = np.bytes_(b"utf-8")  # h5py would store a `str` in a heap


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


def _make_scale(file: h5py.File, axis: str, length: int) -> h5py.Dataset:
    head, slash, last = axis.rpartition("/")
    of_classes = f"{head}{slash}probabilities"
    names: Any = file[of_classes].attrs.get(CLASS_NAMES, ()) if last == CLASS else ()
    if axis in file:  # the numbers of the rows
        scale = file[axis]
    elif length and length == len(names):
        dtype = h5py.string_dtype("utf-8", names.dtype.itemsize)
        scale = file.create_dataset(axis, data=names, dtype=dtype)
        mark_as_text(scale)
    else:
        # Never written, and so without a byte of data.
        growing = {"dtype": np.int64, "maxshape": (None,)} if axis == ROW else {"dtype": np.int8}
        scale = file.create_dataset(axis, shape=(length,), **growing)
        last = _NO_VALUES.format(length)
    scale.make_scale(last)
    return scale
