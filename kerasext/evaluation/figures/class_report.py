"""Precision and recall of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

ClassReport = dict[str, dict[str, float]]

_AVERAGES = ("macro avg", "weighted avg")


def class_report(names: Sequence[str], matrix: np.ndarray) -> ClassReport:
    """What scikit-learn's `classification_report` says of all classes, in its words.

    From the matrix, which has all that it takes: scikit-learn would want the labels themselves.

    Args:
        names: Sequence of strings, one per class.
        matrix: Array of shape `(classes, classes)`, true classes first; or `(labels, 2, 2)`.

    Returns:
        See `Evaluation.class_report`.
    """
    if matrix.ndim == 2:
        hits, predicted, support = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    else:
        hits, predicted, support = matrix[:, 1, 1], matrix[:, :, 1].sum(1), matrix[:, 1].sum(1)
    scores = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1-score": _ratio(2 * hits, predicted + support),
    }
    report: ClassReport = {}
    for place, name in enumerate(distinct_names(names, reserved=_AVERAGES)):
        report[name] = {score: float(values[place]) for score, values in scores.items()}
        report[name]["support"] = int(support[place])
    total = int(support.sum())
    for average, weights in zip(_AVERAGES, (np.ones(len(support)), support), strict=True):
        report[average] = {
            score: float(values @ weights / max(weights.sum(), 1))
            for score, values in scores.items()
        }
        report[average]["support"] = total
    return report


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = part / np.maximum(whole, 1)  # the part of nothing is 0
    return ratio


def distinct_names(names: Sequence[str], *, reserved: Sequence[str] = ()) -> list[str]:
    """The names of classes as keys of a dict.

    Args:
        names: Sequence of strings, one per class.
        reserved: Sequence of strings. Other keys of the dict. Defaults to `()`.

    Returns:
        List of strings. A name that is reserved, or that several classes have, is followed by the
        number of the class, as `"cat (3)"`.
    """
    counts = Counter([*names, *reserved])
    taken = set(counts)
    keys = []
    for place, name in enumerate(names):
        key = name
        if counts[name] > 1:
            while key in taken:
                key += f" ({place})"
            taken.add(key)
        keys.append(key)
    return keys
