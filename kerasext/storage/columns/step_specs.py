"""What every output looks like in the file, from the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.output_names import find_outputs
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.format.layout import check_names

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Ragged = bool | Iterable[str]
Spec = DenseSpec | RaggedSpec


def can_hold(spec: Spec, other: Spec) -> bool:
    """Whether rows of `other` are rows of `spec` as they stand, text padded if need be."""
    if isinstance(spec, DenseSpec):
        return isinstance(other, DenseSpec) and spec.can_hold(other)
    return isinstance(other, RaggedSpec) and spec.can_hold(other)


def check_ragged(ragged: Ragged) -> bool | tuple[str, ...]:
    """Checks a choice of outputs whose rows may differ in shape, and returns it.

    Args:
        ragged: Bool, for all outputs whose rows have an axis or for none; or names of outputs or of
            groups of them.

    Raises:
        TypeError: If it is something else.
    """
    if isinstance(ragged, bool):
        return ragged
    names = tuple(ragged) if isinstance(ragged, Iterable) else (None,)
    if isinstance(ragged, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`ragged` must be a bool or a list of names of outputs. Received: ragged={ragged!r}"
        )
    return names


def specs_of(
    step: Mapping[str, np.ndarray | RaggedRows],
    *,
    dtypes: Mapping[str, DTypeLike],
    ragged: bool | tuple[str, ...],
) -> dict[str, Spec]:
    """The specs of the outputs of a first step.

    Args:
        step: Mapping from output name to its rows.
        dtypes: Mapping from output name to the dtype it is stored as.
        ragged: As `check_ragged` returns it. Outputs of one number per row have no shape to differ.

    Raises:
        ValueError: If there is no output, or none of a name that is asked for, or a name can't be
            that of one; and see `DenseSpec.of_array`.
        TypeError: If HDF5 has no type for an output, or its rows differ in shape and it was not
            asked for.
    """
    if not step:
        raise ValueError("A step must have at least one output. Received: {}")
    find_outputs(step, dtypes, argument="dtypes", groups=False)
    groups = () if isinstance(ragged, bool) else ragged
    flat = set(step) if ragged is True else find_outputs(step, groups, argument="ragged")
    check_names(step)
    return {
        name: (
            RaggedSpec.of_rows(name, rows, dtypes.get(name))
            if name in flat and _has_axes(rows)
            else DenseSpec.of_array(name, rows, dtypes.get(name))
        )
        for name, rows in step.items()
    }


def _has_axes(rows: np.ndarray | RaggedRows) -> bool:
    return isinstance(rows, RaggedRows) or rows.ndim > 1
