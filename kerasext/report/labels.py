"""Labels and targets as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasext.report.markup import short
from kerasext.storage import ClassNames

_MOST = 8  # labels of one row that are shown
_MOST_NAME = 80  # characters of a name


def label_name(label: Any, names: ClassNames | None) -> str:
    """The name of a label, or the label where it has none."""
    if names is not None and isinstance(label, int) and 0 <= label < len(names):
        return short(names[label], _MOST_NAME) or "(empty name)"
    if label == -1:
        return "no label"
    return f"{label:.6g}" if isinstance(label, float) else short(label, _MOST_NAME)


def row_text(values: Any, names: ClassNames | None, *, are_indicators: bool) -> str:
    """The labels, or targets, of one row.

    Args:
        values: Array of shape `(...)`, one label or several; or array of shape `(classes,)` of
            indicators, which are 1 for the classes that there are.
        names: Names of the classes.
        are_indicators: Bool. Whether they are the second.
    """
    values = np.asarray(values)
    if not values.ndim:
        return label_name(values.item(), names)
    if are_indicators and values.ndim == 1:
        shown = np.flatnonzero(values == 1)
        unknown = ["no label"] if (values == -1).any() else []
    else:
        shown, unknown = values.reshape(-1), []
    texts = [label_name(label, names) for label in shown[:_MOST].tolist()] + unknown
    more = f" and {shown.size - _MOST:,} more" if shown.size > _MOST else ""
    return ", ".join(texts) + more if texts else "none"
