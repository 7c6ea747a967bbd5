"""What a head of a model predicts, and the outputs that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, final

from keras import ops

from kerasext.models.heads.calibrated import (
    acted_on,
    at_least_float32,
    binary_probabilities,
    class_probabilities,
)
from kerasext.models.heads.scores import scores_of

FITTED = ("calibration", "prediction_sets", "abstention")
"""Settings that the methods of a model fit to rows."""


class ModelHead(NamedTuple):
    """One head of a model, as its task and settings make it.

    Args:
        name: String. `""` for the only head of a model.
        task: String. The name of its task, `None` if it is passed on as it is.
        setting: Function from the name of a setting to its value for this head.
        way_to: Function from the name of another task to how the user gives it to this head.
        shape: Tuple of the shape, with `None` for lengths that are not known.
        activation: String. What the last layer applies, `None` if unknown.
        one_pass: Bool. Whether `top_k` finds the largest value and its index at once faster than
            `max` and `argmax` do.
    """

    name: str
    task: str | None
    setting: Callable[[str], Any]
    way_to: Callable[[str | None], str]
    shape: tuple[int | None, ...] = ()
    activation: str | None = None
    one_pass: bool = False

    @property
    def of(self) -> str:
        """The head in a message, nothing if it is the only one."""
        return f" of head {self.name!r}" if self.name else ""

    def has(self, setting: str) -> bool:
        """Whether heads with this task have a setting."""
        return has_setting(self.task, setting)

    @property
    def from_logits(self) -> bool:
        """Whether it yields logits."""
        return self.has("from_logits") and bool(self.setting("from_logits"))


class Task(Protocol):
    """What a head predicts.

    Attributes:
        name: String. What `tasks` and the metadata of a prediction call it.
        activation: String. What the last layer of such a head applies, `None` if anything.
        settings: Tuple of the names of the settings that it has.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def activation(self) -> str | None: ...  # noqa: D102

    @property
    def settings(self) -> tuple[str, ...]: ...  # noqa: D102

    def check_shape(self, head: ModelHead) -> int | None:
        """Returns the number of classes, `None` if unknown; raises `ValueError` if it can't be."""

    def check_settings(self, head: ModelHead) -> None:
        """Raises `ValueError` if a setting does not fit the shape."""

    def outputs(self, y_pred: Any, head: ModelHead) -> dict[str, Any]:
        """The named outputs, made of `keras.ops` because this runs in the compiled step."""


@final
class Classifier:
    """One class out of several: a unit for each class on the last axis."""

    name = "classifier"
    activation = "softmax"
    settings = ("from_logits", "class_names", "scores", "top_k", *FITTED)

    def check_shape(self, head: ModelHead) -> int | None:
        """The number of units."""
        if len(head.shape) < 2 or head.shape[-1] == 1:
            raise ValueError(
                f"The output{head.of} must have one unit per class on its last axis; a model with "
                f"one unit takes {head.way_to('binary')}. Received: shape={head.shape}"
            )
        return head.shape[-1]

    def check_settings(self, head: ModelHead) -> None:
        """`top_k` is at most the number of classes."""
        top_k, classes = head.setting("top_k"), head.shape[-1]
        if top_k is not None and classes is not None and top_k > classes:
            raise ValueError(
                f"`top_k` must be at most {classes}, the number of classes{head.of}. "
                f"Received: top_k={top_k}"
            )

    def outputs(self, y_pred: Any, head: ModelHead) -> dict[str, Any]:
        """See `ClassifierMixin`."""
        probabilities = class_probabilities(y_pred, head.setting)
        unknown = ops.any(ops.isnan(probabilities), axis=-1)
        confidence, labels = _largest(probabilities, head.one_pass)
        labels = ops.where(unknown, -1, ops.cast(labels, "int32"))
        outputs = {
            "probabilities": probabilities,
            "labels": labels,
            "confidence": ops.where(unknown, float("nan"), ops.cast(confidence, "float32")),
        }
        top_k = head.setting("top_k")
        if top_k is not None:
            unknown = unknown[..., None]
            largest, indices = ops.top_k(probabilities, k=top_k)
            indices = _beginning_with(labels[..., None], ops.cast(indices, "int32"))
            outputs["top_k_labels"] = ops.where(unknown, -1, indices)
            outputs["top_k_probabilities"] = ops.where(unknown, float("nan"), largest)
        outputs |= acted_on(outputs, head.setting)
        return {**outputs, **scores_of(head.setting("scores"), probabilities)}


@final
class Binary:
    """Yes or no: one unit, of class 1."""

    name = "binary"
    activation = "sigmoid"
    settings = ("from_logits", "class_names", "scores", "threshold", *FITTED)

    def check_shape(self, head: ModelHead) -> int:
        """Two classes, of one unit."""
        if len(head.shape) < 2 or head.shape[-1] not in (1, None):
            raise ValueError(
                f"The output{head.of} must have one unit on its last axis; a model with one per "
                f"class takes {head.way_to('classifier')}, with one per label "
                f"{head.way_to('multilabel')}. Received: shape={head.shape}"
            )
        return 2

    def check_settings(self, head: ModelHead) -> None:
        """The threshold is one number."""
        threshold = head.setting("threshold")
        if isinstance(threshold, tuple):
            raise ValueError(
                f"`threshold` must be one number for a binary output. Received: {threshold}"
            )

    def outputs(self, y_pred: Any, head: ModelHead) -> dict[str, Any]:
        """See `BinaryClassifierMixin`."""
        both = binary_probabilities(y_pred, head.setting)
        probabilities = ops.concatenate(both, axis=-1)
        negative, positive = probabilities[..., 0], probabilities[..., 1]
        above = positive > head.setting("threshold")
        labels = ops.where(ops.isnan(positive), -1, ops.cast(above, "int32"))
        confidence = ops.where(above, positive, negative)
        outputs = {
            "probabilities": probabilities,
            "labels": ops.cast(labels, "int32"),
            "confidence": ops.cast(confidence, "float32"),
        }
        outputs |= acted_on(outputs, head.setting)
        return {**outputs, **scores_of(head.setting("scores"), probabilities)}


@final
class MultiLabel:
    """Any number of labels: a unit for each, decided on its own."""

    name = "multilabel"
    activation = "sigmoid"
    settings = ("from_logits", "class_names", "scores", "threshold", *FITTED)

    def check_shape(self, head: ModelHead) -> int | None:
        """The number of units."""
        if len(head.shape) < 2:
            raise ValueError(
                f"The output{head.of} must have one unit per label on its last axis. "
                f"Received: shape={head.shape}"
            )
        return head.shape[-1]

    def check_settings(self, head: ModelHead) -> None:
        """There is one threshold, or one for each label."""
        threshold, labels = head.setting("threshold"), head.shape[-1]
        if isinstance(threshold, tuple) and labels not in (None, len(threshold)):
            raise ValueError(
                f"`threshold` must be one number, or one for each of the {labels} labels. "
                f"Received: {len(threshold)} numbers"
            )

    def outputs(self, y_pred: Any, head: ModelHead) -> dict[str, Any]:
        """See `MultiLabelClassifierMixin`."""
        _, probabilities = binary_probabilities(y_pred, head.setting)
        threshold = ops.convert_to_tensor(head.setting("threshold"), probabilities.dtype)
        above = probabilities > threshold
        labels = ops.where(ops.isnan(probabilities), -1, ops.cast(above, "int32"))
        confidence = ops.where(above, probabilities, 1 - probabilities)
        outputs = {
            "probabilities": probabilities,
            "labels": ops.cast(labels, "int32"),
            "confidence": ops.cast(confidence, "float32"),
        }
        outputs |= acted_on(outputs, head.setting)
        if head.setting("scores"):
            two_classes = ops.stack([1 - probabilities, probabilities], axis=-1)
            outputs |= scores_of(head.setting("scores"), two_classes)
        return outputs


@final
class Regressor:
    """A number, or several, with their standard deviations if the model yields them."""

    name = "regressor"
    activation = None
    settings = ("scale",)

    def check_shape(self, head: ModelHead) -> None:
        """There are no classes."""
        if not head.shape:
            raise ValueError(
                f"The output{head.of} must have one row for each row of the data. "
                f"Received: shape={head.shape}"
            )

    def check_settings(self, head: ModelHead) -> None:
        """With `scale` the units are halved."""
        scale = head.setting("scale")
        units = head.shape[-1] if len(head.shape) > 1 else 1
        if scale is not None and (units is None or units % 2):
            raise ValueError(
                f"`scale` needs an even number of units{head.of}, the numbers first and then "
                "the scale of each; drop `scale` if there is none. "
                f"Received: scale={scale!r} for shape={head.shape}"
            )

    def outputs(self, y_pred: Any, head: ModelHead) -> dict[str, Any]:
        """See `RegressorMixin`."""
        y_pred, scale = at_least_float32(y_pred), head.setting("scale")
        if scale is None:
            return {"prediction": _of_units(y_pred)}
        prediction, deviation = ops.split(y_pred, 2, axis=-1)
        if scale == "log_std":
            deviation = ops.exp(deviation)
        return {"prediction": _of_units(prediction), "scale": _of_units(deviation)}


TASKS: dict[str, Task] = {
    task.name: task for task in (Classifier(), Binary(), MultiLabel(), Regressor())
}


def task_of(head: str, tasks: Any, default: str | None) -> str | None:
    """The name of the task that the setting `tasks` gives a head."""
    if isinstance(tasks, Mapping):
        found: str | None = tasks.get(head, default)
        return found
    return tasks or default


def has_setting(task: str | None, setting: str) -> bool:
    """Whether heads with a task have a setting."""
    return task is not None and setting in TASKS[task].settings


def _of_units(tensor: Any) -> Any:
    """Without the last axis if that is one unit."""
    has_one_unit = len(tensor.shape) > 1 and tensor.shape[-1] == 1
    return ops.squeeze(tensor, axis=-1) if has_one_unit else tensor


def _largest(probabilities: Any, one_pass: bool) -> tuple[Any, Any]:
    """The largest value on the last axis, and its index, the first one of equals."""
    if not one_pass:
        return ops.max(probabilities, axis=-1), ops.argmax(probabilities, axis=-1)
    values, indices = ops.top_k(probabilities, k=1)
    return ops.squeeze(values, axis=-1), ops.squeeze(indices, axis=-1)


def _beginning_with(label: Any, indices: Any) -> Any:
    """The indices of `top_k`, the label first: of equals torch may put another one there.

    The two change places. Not by slices: of a `top_k` that is sliced XLA makes a sort of all
    classes on CPUs.
    """
    is_first = ops.arange(indices.shape[-1], dtype="int32") == 0
    first = ops.max(ops.where(is_first, indices, 0), axis=-1, keepdims=True)
    return ops.where(is_first, label, ops.where(indices == label, first, indices))
