"""Whether two sets of predictions are distributed alike."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from kerasext.evaluation.counts import labels_and_confidence, read_blocks
from kerasext.evaluation.drift.running_figures import RunningFigures
from kerasext.evaluation.drift.stability_index import index_by_chance, stability_index
from kerasext.storage import PredictionFile, opened

Shares = dict[str, float] | np.ndarray


class Monitor(Protocol):
    """What `compare` needs of a `PredictionMonitor`.

    Attributes:
        head: String. The head that was counted, `""` for a model with one.
        figures: `RunningFigures`. What was counted.
    """

    head: str
    figures: RunningFigures


@dataclass(frozen=True, eq=False)
class Comparison:
    """How far two sets of predictions are apart. `compare` makes it, and `print` explains it.

    The population stability index is `sum((p - q) * log(p / q))` over bins, where p and q are the
    shares of a bin in each set. It is the same if the sets are swapped, and 0 if they are alike. As
    a rule of thumb, an index below 0.1 is no change to speak of, and one above 0.25 is a strong
    change: Siddiqi, "Credit Risk Scorecards" (2006).

    Attributes:
        rows: Tuple of two ints. Rows of each set.
        labels: Float. The index of the labels. Its bins are the classes, and -1 for rows without a
            label. Of a multi-label classifier it is the largest index of a single label, whose bins
            are 0, 1 and -1.
        confidence: Float. The index of the histogram of confidence; NaN if a set has no confidence
            but NaN.
        index_by_chance: Dict with the keys `"labels"` and `"confidence"`. Rows that are drawn at
            random from one distribution exceed this index once in some 30,000 times, because few
            rows differ by chance: Yurdakul, "Statistical Properties of Population Stability Index"
            (2018). An index below it tells nothing. Rows that resemble their neighbours, such as
            frames of a video, differ by more.
        class_shares: Tuple of two dicts from class name to the share of the class in each set, or
            of two float64 arrays of shape `(classes,)` if there are no names. Labels that are -1
            are left out.
    """

    rows: tuple[int, int]
    labels: float
    confidence: float
    index_by_chance: dict[str, float]
    class_shares: tuple[Shares, Shares] = field(repr=False)

    def __str__(self) -> str:
        lines = [f"population stability index of {self.rows[0]:,} and {self.rows[1]:,} rows"]
        for name, index in (("labels", self.labels), ("confidence", self.confidence)):
            chance = self.index_by_chance[name]
            lines.append(f"{name:<10} {index:8.4f}  {_verdict(index, chance)}")
        return "\n".join(lines)


def compare(
    a: PredictionFile | Monitor | str | os.PathLike[str],
    b: PredictionFile | Monitor | str | os.PathLike[str],
    *,
    head: str = "",
    bins: int = 20,
) -> Comparison:
    """Compares the labels and confidences of two sets of predictions, in constant memory.

    It needs no targets, and tells whether a model predicts otherwise than before: because the data
    changed, or the model did. All committed rows are compared. With more axes than rows, such as
    pixels, all positions count alike.

    Args:
        a: Path of a prediction file or of an index, an open `PredictionFile`, or a
            `PredictionMonitor` that has counted rows.
        b: As `a`.
        head: String. The head, of files with several. Defaults to `""`, for files with one.
        bins: Int. Bins of the histogram of confidence. Defaults to 20, as in `PredictionMonitor`.

    Returns:
        `Comparison`.

    Raises:
        FileNotFoundError: If a file does not exist.
        TypeError: If `a` or `b` is something else, or labels or confidences are of the wrong dtype.
        ValueError: If one of them has no rows, no `labels` or no `confidence`; if they are of
            different tasks or classes; if a monitor counted another head, or in other bins; if
            `bins` is less than 2; if a file was closed, or is damaged.

    Example:

    ```python
    drift = compare("last_week.h5", "today.h5")
    drift.labels, drift.confidence  # 0.02, 0.31
    print(drift)
    # population stability index of 7,000 and 6,500 rows
    # labels       0.0200  little change
    # confidence   0.3100  strong change
    ```
    """
    if bins < 2:
        raise ValueError(f"`bins` must be at least 2; the default is 20. Received: bins={bins}")
    first, second = (_figures_of(source, name, head, bins) for name, source in (("a", a), ("b", b)))
    _check_alike(first, second)
    first, second = first.with_classes_of(second), second.with_classes_of(first)
    rows = first.rows, second.rows
    return Comparison(
        rows=rows,
        labels=stability_index(first.label_counts, second.label_counts),
        confidence=stability_index(first.confidence_counts, second.confidence_counts),
        # By rows: further axes, such as pixels, are not independent samples.
        index_by_chance={
            "labels": index_by_chance(first.label_counts.shape[-1], *rows),
            "confidence": index_by_chance(bins, *rows),
        },
        class_shares=(first.class_shares, second.class_shares),
    )


def _verdict(index: float, chance: float) -> str:
    if np.isnan(index):
        return "unknown: nothing to compare"
    if index <= chance:
        return f"no more than chance explains ({chance:.2g})"
    if index < 0.1:
        return "little change"
    return "some change" if index <= 0.25 else "strong change"


def _figures_of(source: Any, name: str, head: str, bins: int) -> RunningFigures:
    """The figures of `a` or `b`, which is the name of the argument."""
    figures = getattr(source, "figures", None)
    if isinstance(figures, RunningFigures):
        of_monitor = {"head": source.head, "bins": len(figures.confidence_counts)}
        for option, given in (("head", head), ("bins", bins)):
            if of_monitor[option] != given:
                raise ValueError(
                    f"`{option}` must be that of the monitor `{name}`; pass "
                    f"{option}={of_monitor[option]!r}. Received: {option}={given!r}"
                )
        if not figures.rows:
            raise ValueError(
                f"The monitor `{name}` must have counted rows; pass it to `predict` first. "
                "Received: a monitor of 0 rows"
            )
        return figures
    if not isinstance(source, PredictionFile | str | os.PathLike):
        raise TypeError(
            f"`{name}` must be a path, a `PredictionFile` or a `PredictionMonitor`. "
            f"Received: {name}={source!r}"
        )
    with opened(source) as predictions:
        view = predictions.head(head)
        figures = RunningFigures.of_head(view, bins=bins)
        for _, labels, confidence in read_blocks(*labels_and_confidence(view)):
            figures.take(labels, confidence)
        return figures


def _check_alike(a: RunningFigures, b: RunningFigures) -> None:
    if a.task != b.task:
        raise ValueError(
            "`a` and `b` must be predictions of the same task; compare files of models with the "
            f"same mixin. Received: the tasks {a.task!r} and {b.task!r}"
        )
    classes = max(a.classes, b.classes)
    names = a.class_names, b.class_names
    if (None not in names and names[0] != names[1]) or any(
        figures.known_classes not in (0, classes) for figures in (a, b)
    ):
        raise ValueError(
            "`a` and `b` must be predictions of the same classes in the same order; compare files "
            "of one model, or of models with the same `class_names`. "
            f"Received: {_classes_in_words(a)} and {_classes_in_words(b)}"
        )


def _classes_in_words(figures: RunningFigures) -> str:
    if figures.class_names is None:
        return f"{figures.classes} classes without names"
    more = ", ..." if figures.classes > 5 else ""
    return f"{figures.classes} classes ({', '.join(figures.class_names[:5])}{more})"
