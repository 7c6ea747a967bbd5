"""One class out of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kerasext.keras_internals import cooperative
from kerasext.models.from_model import FromModel, HeldModel
from kerasext.models.prediction_mixin import PredictionMixin, probabilities_dtype
from kerasext.models.settings import SETTINGS


class ClassifierMixin(PredictionMixin):
    """Makes `predict` of a classifier return probabilities, labels and confidence.

    The model has one unit per class on its last axis. With leading axes, as in tokens or pixels,
    each position is classified:

    - `probabilities`: shape `(batch, ..., classes)`, float32 (float64 for a float64 model).
    - `labels`: shape `(batch, ...)`, int32. Index of the largest probability, the first one of
      equals; -1 where any is NaN.
    - `confidence`: shape `(batch, ...)`, float32 in [0, 1]. The probability of the label; NaN where
      any is NaN.

    With `top_k`, and by the names in `scores`, also:

    - `top_k_labels`: shape `(batch, ..., top_k)`, int32. The label, then the indices of the next
      largest probabilities; equal ones in the order of `keras.ops.top_k`. -1 where any is NaN.
    - `top_k_probabilities`: shape `(batch, ..., top_k)`, dtype of `probabilities`, descending. NaN
      where any is NaN.
    - `entropy`: shape `(batch, ...)`, float32, from 0 to the logarithm of the number of classes.
      `-sum(p * log(p))` in nats, as in section 6 of Shannon, "A Mathematical Theory of
      Communication" (1948), where `0 * log(0)` is 0; NaN where any is NaN.
    - `margin`: shape `(batch, ...)`, float32 in [0, 1]. The difference of the two largest
      probabilities; NaN where any is NaN.

    List the mixin before the Keras class. A class whose own `predict_step` calls neither
    `super().predict_step` nor `postprocess` hides the mixin, and a warning says so. Settings may
    also be class attributes, which `keras.models.clone_model` keeps where it keeps the class: of a
    Sequential it makes a plain one.

    Args:
        from_logits: Bool. Whether the model yields logits, to be put through a softmax. Defaults to
            `False`. For a model with several heads a dict from head to bool is possible.
        class_names: Sequence of strings, one per class; or a dict from class to name, as
            `{0: "cat", 1: "dog"}`, or from name to class, as the `class_indices` of Keras's
            generators. For a model with several heads a dict from head to one of these is possible.
            Defaults to `None`.
        top_k: Integer, from 1 to the number of classes, or a dict of them by head. Defaults to
            `None`, for neither of its outputs.
        scores: Sequence out of `"entropy"` and `"margin"`, or a dict of them by head. Defaults to
            `()`.

    Raises:
        TypeError: If the mixin stands right of the Keras class, or a setting has the wrong type.
        ValueError: If the model's output is not what the settings declare: the number of names,
            logits announced but a softmax at the end, one unit only, fewer classes than `top_k`.

    Example:

    ```python
    class DigitNet(ClassifierMixin, keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(10, activation="softmax")

        def call(self, x):
            return self.dense(x)

    outputs = DigitNet(class_names=list("0123456789")).predict(images)
    outputs["labels"], outputs["confidence"]
    ```
    """

    top_k: Any = SETTINGS["top_k"].default

    task = "classifier"
    _activation = "softmax"
    _settings = (*PredictionMixin._settings, "top_k")

    @cooperative
    def __init__(
        self,
        *args: Any,
        from_logits: bool | Mapping[str, bool] | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        top_k: int | Mapping[str, int] | None = None,
        scores: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._configure(
            from_logits=from_logits, class_names=class_names, top_k=top_k, scores=scores
        )

    def _number_of_classes(self, of_head: str, shape: Any) -> int | None:
        if len(shape) < 2 or shape[-1] == 1:
            raise ValueError(
                f"The output{of_head} must have one unit per class on its last axis; a model with "
                f"one unit takes `BinaryClassifierMixin`. Received: shape={tuple(shape)}"
            )
        return shape[-1]  # type: ignore[no-any-return]

    def _check_head(self, head: str, tensor: Any) -> None:
        super()._check_head(head, tensor)
        top_k, classes = self._setting("top_k", head), tensor.shape[-1]
        if None not in (top_k, classes) and top_k > classes:
            raise ValueError(
                f"`top_k` must be at most {classes}, the number of classes"
                f"{f' of head {head!r}' if head else ''}. Received: top_k={top_k}"
            )

    def _describe(self, y_pred: Any, head: str) -> dict[str, Any]:
        probabilities = ops.cast(y_pred, probabilities_dtype(y_pred))
        if self._setting("from_logits", head):
            probabilities = ops.softmax(probabilities, axis=-1)
        unknown = ops.any(ops.isnan(probabilities), axis=-1)
        confidence = ops.cast(ops.max(probabilities, axis=-1), "float32")
        labels = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
        outputs = {
            "probabilities": probabilities,
            "labels": ops.where(unknown, -1, labels),
            "confidence": ops.where(unknown, float("nan"), confidence),
        }
        top_k = self._setting("top_k", head)
        if top_k is not None:
            unknown = unknown[..., None]
            largest, indices = ops.top_k(probabilities, k=top_k)
            indices = _beginning_with(labels[..., None], ops.cast(indices, "int32"))
            outputs["top_k_labels"] = ops.where(unknown, -1, indices)
            outputs["top_k_probabilities"] = ops.where(unknown, float("nan"), largest)
        return {**outputs, **self._scores(probabilities, head)}


def _beginning_with(label: Any, indices: Any) -> Any:
    """The indices of `top_k`, the label first: of equals torch may put another one there.

    The two change places. Not by slices: of a `top_k` that is sliced XLA makes a sort of all
    classes on CPUs.
    """
    is_first = ops.arange(indices.shape[-1], dtype="int32") == 0
    first = ops.max(ops.where(is_first, indices, 0), axis=-1, keepdims=True)
    return ops.where(is_first, label, ops.where(indices == label, first, indices))


@keras.saving.register_keras_serializable(package="kerasext")
class HeldClassifier(ClassifierMixin, HeldModel):
    """What `ClassifierModel.from_model` makes of a model without a graph."""


@keras.saving.register_keras_serializable(package="kerasext")
class ClassifierModel(FromModel, ClassifierMixin, keras.Model):
    """`ClassifierMixin` on `keras.Model`, for functional models and trained ones.

    Made from `inputs` and `outputs` like a `keras.Model`, or by `from_model`. A subclass with a
    `call` of its own takes the mixin instead.

    Example:

    ```python
    model = ClassifierModel(inputs, outputs, class_names=["cat", "dog"])
    model = ClassifierModel.from_model(trained, from_logits=True)
    ```
    """

    _held = HeldClassifier
