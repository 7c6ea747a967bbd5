"""One of two classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kerasext.keras_internals import cooperative
from kerasext.models.from_model import FromModel, HeldModel
from kerasext.models.prediction_mixin import PredictionMixin, probabilities_dtype
from kerasext.models.settings import SETTINGS


class BinaryClassifierMixin(PredictionMixin):
    """Makes `predict` of a binary classifier return probabilities, labels and confidence.

    The model has one unit on its last axis, the probability (or logit) of class 1. As in
    scikit-learn two columns come out:

    - `probabilities`: shape `(batch, ..., 2)`, float32 (float64 for a float64 model).
    - `labels`: shape `(batch, ...)`, int32. 1 where the probability of class 1 is greater than
      `threshold`, else 0; -1 where it is NaN.
    - `confidence`: shape `(batch, ...)`, float32 in [0, 1]. The probability of the label given,
      which is below 0.5 for some rows if `threshold` is not 0.5; NaN where the probability is.

    By the names in `scores` also:

    - `entropy`: shape `(batch, ...)`, float32, from 0 to `log(2)`. `-sum(p * log(p))` of the two
      probabilities in nats, as in section 6 of Shannon, "A Mathematical Theory of Communication"
      (1948), where `0 * log(0)` is 0; NaN where the probability is.
    - `margin`: shape `(batch, ...)`, float32 in [0, 1]. The difference of the two probabilities,
      whatever the `threshold`; NaN where the probability is.

    List the mixin before the Keras class. A class whose own `predict_step` calls neither
    `super().predict_step` nor `postprocess` hides the mixin, and a warning says so. Settings may
    also be class attributes, which `keras.models.clone_model` keeps where it keeps the class: of a
    Sequential it makes a plain one.

    Args:
        from_logits: Bool. Whether the model yields logits, to be put through a sigmoid. Defaults to
            `False`. For a model with several heads a dict from head to bool is possible.
        class_names: Sequence of two strings, of class 0 and class 1; or a dict from class to name,
            or from name to class; or a dict of those by head. Defaults to `None`.
        threshold: Float in [0, 1], or a dict of them by head. Defaults to 0.5.
        scores: Sequence out of `"entropy"` and `"margin"`, or a dict of them by head. Defaults to
            `()`.

    Raises:
        TypeError: If the mixin stands right of the Keras class, or a setting has the wrong type.
        ValueError: If the model's output is not what the settings declare.

    Example:

    ```python
    class Screening(BinaryClassifierMixin, keras.Model):
        threshold = 0.2
        class_names = ("healthy", "ill")
    ```
    """

    threshold: Any = SETTINGS["threshold"].default

    task = "binary"
    _activation = "sigmoid"
    _settings = (*PredictionMixin._settings, "threshold")

    @cooperative
    def __init__(
        self,
        *args: Any,
        from_logits: bool | Mapping[str, bool] | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        threshold: float | Mapping[str, float] | None = None,
        scores: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._configure(
            from_logits=from_logits, class_names=class_names, threshold=threshold, scores=scores
        )

    def _number_of_classes(self, of_head: str, shape: Any) -> int | None:
        if len(shape) < 2 or shape[-1] not in (1, None):
            raise ValueError(
                f"The output{of_head} must have one unit on its last axis; a model with one per "
                "class takes `ClassifierMixin`, with one per label `MultiLabelClassifierMixin`. "
                f"Received: shape={tuple(shape)}"
            )
        return 2

    def _check_head(self, head: str, tensor: Any) -> None:
        super()._check_head(head, tensor)
        threshold = self._setting("threshold", head)
        if isinstance(threshold, tuple):
            raise ValueError(
                f"`threshold` must be one number for a binary output. Received: {threshold}"
            )

    def _describe(self, y_pred: Any, head: str) -> dict[str, Any]:
        y_pred = ops.cast(y_pred, probabilities_dtype(y_pred))
        if self._setting("from_logits", head):
            # 1 - sigmoid(x) loses every digit where x is large, sigmoid(-x) none.
            negative, positive = ops.sigmoid(-y_pred), ops.sigmoid(y_pred)
        else:
            negative, positive = 1 - y_pred, y_pred
        probabilities = ops.concatenate([negative, positive], axis=-1)
        negative, positive = probabilities[..., 0], probabilities[..., 1]
        above = positive > self._setting("threshold", head)
        labels = ops.where(ops.isnan(positive), -1, ops.cast(above, "int32"))
        confidence = ops.where(above, positive, negative)
        return {
            "probabilities": probabilities,
            "labels": ops.cast(labels, "int32"),
            "confidence": ops.cast(confidence, "float32"),
            **self._scores(probabilities, head),
        }


@keras.saving.register_keras_serializable(package="kerasext")
class HeldBinaryClassifier(BinaryClassifierMixin, HeldModel):
    """What `BinaryClassifierModel.from_model` makes of a model without a graph."""


@keras.saving.register_keras_serializable(package="kerasext")
class BinaryClassifierModel(FromModel, BinaryClassifierMixin, keras.Model):
    """`BinaryClassifierMixin` on `keras.Model`, for functional models and trained ones.

    Made from `inputs` and `outputs` like a `keras.Model`, or by `from_model`. A subclass with a
    `call` of its own takes the mixin instead.

    Example:

    ```python
    model = BinaryClassifierModel.from_model(trained, threshold=0.2)
    ```
    """

    _held = HeldBinaryClassifier
