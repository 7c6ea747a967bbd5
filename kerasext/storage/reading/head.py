"""One view of what a file says of a head: its outputs, classes, task and targets."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.storage.columns.class_names import ClassNames
from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.format.layout import TARGETS, head_and_output, output_path
from kerasext.storage.reading.dense_output import DenseOutput
from kerasext.storage.reading.labels_at import RelabelledColumn, checked_threshold
from kerasext.storage.reading.row_blocks import Output

_OUTPUTS_OF_TASKS = frozenset(
    (
        *("probabilities", "labels", "confidence", "top_k_labels", "top_k_probabilities"),
        *("prediction_set", "set_size", "abstained", "prediction"),
    )
)
"""What makes a group a head, whatever else is in it."""


class Head:
    """What a file holds of one head of a model. `PredictionFile.head` makes it.

    An output that the file does not have is `None`, because a writer may store some outputs only;
    `require` raises an error instead. Outputs are read when they are indexed, as those of
    `PredictionFile`, and show the rows that the file shows.

    Args:
        name: String. The head; `""` for that of a model with one.
        outputs: Mapping from output name to output: the file.
        metadata: Dict. The `prediction_metadata` of the model.
        class_names: `ClassNames` of the head. Defaults to `None`, for a head without names.
        columns: Names of the columns beside the outputs. Defaults to none.
        path: Path of the file, for messages. Defaults to `None`, for what is in no file.

    Attributes:
        name: String. As above.
        class_names: `ClassNames`, or `None` without names. `class_names[labels]` is the array of
            names of an array of labels.

    Example:

    ```python
    with PredictionFile("animals.h5") as predictions:
        predictions.heads                 # ["kind", "sick"]
        kind = predictions.head("kind")
        kind.task                         # "classifier"
        kind.labels[:10]                  # array of shape (10,), int32
        kind.class_names[kind.labels[:10]]
        predictions.head("sick").labels_at(0.2)[:10]
    ```
    """

    def __init__(
        self,
        name: str,
        outputs: Mapping[str, Any],
        metadata: Mapping[str, Any],
        *,
        class_names: ClassNames | None = None,
        columns: Collection[str] = (),
        path: Path | None = None,
    ) -> None:
        self.name = name
        self.class_names = class_names
        self._outputs = outputs
        self._metadata = metadata
        self._columns = columns
        self._path = path
        self._computed: dict[str, DenseOutput | None] = {}
        self._threshold: Any = None

    @property
    def labels(self) -> Output | None:
        """Numbers of classes of shape `(rows, ...)`, -1 for none; or an indicator per label."""
        return self.get("labels")

    @property
    def confidence(self) -> Output | None:
        """The probability of each label that is given, of the shape of `labels`."""
        return self.get("confidence")

    @property
    def probabilities(self) -> Output | None:
        """Probabilities with the classes, or labels, on the last axis."""
        return self.get("probabilities")

    @property
    def prediction(self) -> Output | None:
        """The numbers of a regressor; or the output itself of a head that is passed on as it is."""
        passed_on = None if self.name in self._columns else self._outputs.get(self.name)
        return self.get("prediction") if passed_on is None else passed_on

    @property
    def scale(self) -> Output | None:
        """The standard deviation of each number in `prediction`."""
        return self.get("scale")

    @property
    def prediction_set(self) -> Output | None:
        """Whether each class, or label, on the last axis is in the prediction set."""
        return self.get("prediction_set")

    @property
    def set_size(self) -> Output | None:
        """How many classes, or labels, are in each prediction set."""
        return self.get("set_size")

    @property
    def abstained(self) -> Output | None:
        """Whether the model abstains from each label, of the shape of `labels`."""
        return self.get("abstained")

    @property
    def calibration(self) -> dict[str, Any] | None:
        """The calibration of `probabilities`, as its `as_json` gives it; `None` without one."""
        return self._fitted("calibration")

    @property
    def prediction_sets(self) -> dict[str, Any] | None:
        """How `prediction_set` is made, as `PredictionSets.as_json` gives it."""
        return self._fitted("prediction_sets")

    @property
    def abstention(self) -> dict[str, Any] | None:
        """How `abstained` is made, as `Abstention.as_json` gives it."""
        return self._fitted("abstention")

    @property
    def stale(self) -> list[str]:
        """Which of these three were fitted on other weights or settings than predicted here."""
        names = setting_of(self._metadata, "stale", self.name)
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @property
    def targets(self) -> Output | None:
        """The column `targets/<head>`, or `targets`: what is true of each row."""
        if TARGETS not in self._columns:  # an output of the model may be called so, too
            return None
        own = self._outputs.get(output_path(TARGETS, self.name)) if self.name else None
        return self._outputs.get(TARGETS) if own is None else own

    @property
    def task(self) -> str | None:
        """`"classifier"`, `"binary"`, `"multilabel"` or `"regressor"`, as the model says.

        `None` for a head that is passed on as it is, and for models without a mixin.
        """
        task = setting_of(self._metadata, "task", self.name)
        return task if isinstance(task, str) else None

    @property
    def threshold(self) -> Any:
        """The probability above which a label of a binary or multi-label head is 1.

        One number, or a list of one per label; `None` if the file does not say.
        """
        stored = setting_of(self._metadata, "threshold", self.name)
        return stored if self._threshold is None else self._threshold

    @property
    def is_multilabel(self) -> bool:
        """Whether each row has several labels: `labels` are an indicator for each.

        They have the shape of `probabilities`, or of `prediction_set`, then; if there is nothing
        to compare, `task` decides.
        """
        labels, by_class = self.labels, self._by_class
        if labels is None or by_class is None:
            return self.task == "multilabel" and (labels is None or len(labels.shape) > 1)
        return len(labels.shape) > 1 and tuple(labels.shape) == tuple(by_class.shape)

    @property
    def is_regression(self) -> bool:
        """Whether it predicts numbers: its task, or in a file without tasks its outputs."""
        if self.task is not None:
            return self.task == "regressor"
        return self.labels is None and self.get("prediction") is not None

    @property
    def classes(self) -> int | None:
        """Number of classes, or of labels; `None` if only the labels themselves show it."""
        if self.class_names is not None:
            return len(self.class_names)
        labels, by_class = self.labels, self._by_class
        if self.is_multilabel and labels is not None:
            return labels.shape[-1]
        if by_class is not None and (
            labels is None or tuple(by_class.shape[:-1]) == tuple(labels.shape)
        ):
            return by_class.shape[-1]
        return 2 if self.task == "binary" else None

    @property
    def _by_class(self) -> Output | None:
        """An output with the classes, or labels, on the last axis."""
        return self.prediction_set if self.probabilities is None else self.probabilities

    def get(self, output: str) -> Output | None:
        """An output of the head, such as `"entropy"`; `None` if the file does not have it."""
        found: Output | None = self._outputs.get(output_path(self.name, output))
        return self._computed.get(output, found)

    def require(self, output: str) -> Output:
        """An output of the head that must be there.

        Raises:
            ValueError: If the file does not have it, with the outputs that it has.
        """
        found = self.prediction if output == "prediction" else self.get(output)
        if found is None:
            raise ValueError(
                f"The file must have the output {output_path(self.name, output)!r}; predict with "
                "one of the mixins, and store it. "
                f"Received: head={self.name!r}, and a file with {sorted(self._outputs)}"
            )
        return found

    def labels_at(self, threshold: Any) -> DenseOutput:
        """Labels by another threshold, from the probabilities that are stored.

        Nothing is predicted again, and nothing is computed until rows are read. The labels are
        those that the model yields with this threshold, if `probabilities` are stored in the dtype
        in which it yields them; otherwise rounding may move some across the threshold.

        Args:
            threshold: Float in [0, 1]; of a multi-label head also an array of one per label. A
                label is 1 where its probability is greater.

        Returns:
            `DenseOutput` of the shape of `labels`, int32: -1 where the probability is NaN.

        Raises:
            TypeError: If `probabilities` are no floats.
            ValueError: If the head is neither binary nor multi-label, the file has no
                `probabilities`, their rows differ in shape, or `threshold` does not fit.
        """
        labels, _ = self._relabelled(threshold)
        return labels

    def at_threshold(self, threshold: Any) -> Head:
        """The head with labels and confidence by another threshold: see `labels_at`.

        It has no `abstained`, which is stored for the other labels only.
        """
        head = Head(
            self.name,
            self._outputs,
            self._metadata,
            class_names=self.class_names,
            columns=self._columns,
            path=self._path,
        )
        labels, confidence = self._relabelled(threshold)
        head._threshold = threshold
        head._computed = {"labels": labels, "confidence": confidence, "abstained": None}
        return head

    def _relabelled(self, threshold: Any) -> tuple[DenseOutput, DenseOutput]:
        is_multilabel = self.is_multilabel
        if not is_multilabel and self.task != "binary":
            raise ValueError(
                "`threshold` is for binary and multi-label heads; leave it out. "
                f"Received: head={self.name!r} of the task {self.task!r}"
            )
        probabilities = self.require("probabilities")
        if probabilities.dtype.kind != "f":
            raise TypeError(
                "Probabilities must be floats, as the mixins predict them. "
                f"Received: {probabilities.name!r} of dtype {probabilities.dtype}"
            )
        shape = probabilities.shape
        if not isinstance(probabilities, DenseOutput) or (
            len(shape) < 2 or (not is_multilabel and shape[-1] != 2)
        ):
            raise ValueError(
                "Probabilities must have one shape in all rows, and the two classes of a binary "
                "head, or the labels, on the last axis; predict with padding and a mixin. "
                f"Received: {probabilities.name!r} of shape {shape}"
            )
        shape = probabilities.shape
        values = checked_threshold(threshold, shape[-1] if is_multilabel else 0, self.name)
        row_shape = shape[1:] if is_multilabel else shape[1:-1]
        path = self._path or Path()
        labels, confidence = (
            DenseOutput(
                path, spec.name, RelabelledColumn(spec, probabilities, values, is_multilabel)
            )
            for spec in (
                DenseSpec(output_path(self.name, name), row_shape, np.dtype(dtype))
                for name, dtype in (("labels", "i4"), ("confidence", "f4"))
            )
        )
        return labels, confidence

    def _fitted(self, name: str) -> dict[str, Any] | None:
        """An entry of the metadata that is a dict itself: a dict by head has dicts only."""
        value = self._metadata.get(name)
        if isinstance(value, Mapping) and all(isinstance(of, Mapping) for of in value.values()):
            value = value.get(self.name)
        return dict(value) if isinstance(value, Mapping) else None

    def __repr__(self) -> str:
        task = f", {self.task}" if self.task else ""
        outputs = sorted(outputs_of(self.name, self._outputs, self._columns))
        return f"<Head {self.name!r}{task}: {', '.join(outputs)}>"


def setting_of(metadata: Mapping[str, Any], name: str, head: str) -> Any:
    """An entry of `prediction_metadata` for a head: its own, where there is a dict by head."""
    value = metadata.get(name)
    return value.get(head) if isinstance(value, Mapping) else value


def outputs_of(head: str, names: Iterable[str], columns: Collection[str]) -> list[str]:
    """The names of the outputs of a head."""
    if head:
        return [name for name in names if name == head or name.startswith(f"{head}/")]
    return [name for name in names if "/" not in name and name not in columns]


def heads_of(
    names: Collection[str], metadata: Mapping[str, Any], columns: Collection[str]
) -> dict[str, bool]:
    """The heads of a file.

    A head is a group with outputs of a task, or what `task` in the metadata names. A file without
    either has one head, `""`, with outputs that no task explains.

    Args:
        names: The names of the outputs, columns included.
        metadata: Dict. The `prediction_metadata` of the model.
        columns: Names of the columns beside the outputs.

    Returns:
        Dict from head to whether it has outputs of a task; others are passed on as they are.
    """
    found = {}
    tasks = metadata.get("task")
    for name in tasks if isinstance(tasks, Mapping) else ():
        if name not in columns and outputs_of(name, names, columns):
            found[name] = False
    for name in names:
        head, output = head_and_output(name)
        if output in _OUTPUTS_OF_TASKS and name.partition("/")[0] not in columns:
            found[head] = True
    return found or {"": False}


def choose_head(name: str, heads: Mapping[str, bool]) -> str:
    """The head of a name, or the only one for `""`; heads that are passed on do not count then.

    Raises:
        TypeError: If `name` is no string.
        ValueError: If there is no such head, or none or several were meant, with the nearest.
    """
    if not isinstance(name, str):
        raise TypeError(f"`head` must be the name of a head, a string. Received: head={name!r}")
    if name in heads:
        return name
    of_tasks = [head for head, has_task in heads.items() if has_task] or list(heads)
    if not name and len(of_tasks) == 1:
        return of_tasks[0]
    listed = sorted(heads)
    near = difflib.get_close_matches(name, listed, n=1)
    nearest = f"; the nearest is {near[0]!r}" if near else ""
    rule = "The head must be one that the file has" if name else "One head must be chosen"
    raise ValueError(f"{rule}; pass `head`, one of {listed}{nearest}. Received: head={name!r}")
