"""Any number of labels at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kerasext.keras_internals import cooperative
from kerasext.models.from_model import FromModel, HeldModel
from kerasext.models.prediction_mixin import PredictionMixin, probabilities_dtype
from kerasext.models.settings import SETTINGS


class MultiLabelClassifierMixin(PredictionMixin):
    """Makes `predict` of a multi-label classifier return probabilities, labels and confidence.

    The model has one unit per label on its last axis, each decided on its own:

    - `probabilities`: shape `(batch, ..., labels)`, float32 (float64 for a float64 model).
    - `labels`: same shape, int32 indicators. 1 where the probability is greater than `threshold`,
      else 0; -1 where it is NaN.
    - `confidence`: same shape, float32 in [0, 1]. The probability p of an indicator 1, 1 - p of an
      indicator 0; NaN where the probability is.

    By the names in `scores` also, of each label on its own:

    - `entropy`: same shape, float32, from 0 to `log(2)`. `-p * log(p) - (1 - p) * log(1 - p)` in
      nats, as in section 6 of Shannon, "A Mathematical Theory of Communication" (1948), where
      `0 * log(0)` is 0; NaN where the probability is.
    - `margin`: same shape, float32 in [0, 1]. `|2 * p - 1|`, whatever the `threshold`; NaN where
      the probability is.

    List the mixin before the Keras class. A class whose own `predict_step` calls neither
    `super().predict_step` nor `postprocess` hides the mixin, and a warning says so. Settings may
    also be class attributes, which `keras.models.clone_model` keeps where it keeps the class: of a
    Sequential it makes a plain one.

    Args:
        from_logits: Bool. Whether the model yields logits, to be put through a sigmoid. Defaults to
            `False`. For a model with several heads a dict from head to bool is possible.
        class_names: Sequence of strings, one per label; or a dict from label to name, or from name
            to label; or a dict of those by head. Defaults to `None`.
        threshold: Float in [0, 1], or a sequence of one per label, or a dict of either by head.
            Defaults to 0.5.
        scores: Sequence out of `"entropy"` and `"margin"`, or a dict of them by head. Defaults to
            `()`.

    Raises:
        TypeError: If the mixin stands right of the Keras class, or a setting has the wrong type.
        ValueError: If the model's output is not what the settings declare.

    Example:

    ```python
    model = MultiLabelClassifierModel(
        inputs, outputs, class_names=["rain", "wind", "snow"], threshold=[0.5, 0.5, 0.2]
    )
    names = predictions.class_names[predictions["labels"][0] == 1]  # of the first row
    ```
    """

    threshold: Any = SETTINGS["threshold"].default

    task = "multilabel"
    _activation = "sigmoid"
    _settings = (*PredictionMixin._settings, "threshold")

    @cooperative
    def __init__(
        self,
        *args: Any,
        from_logits: bool | Mapping[str, bool] | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        threshold: float | Sequence[float] | Mapping[str, float | Sequence[float]] | None = None,
        scores: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._configure(
            from_logits=from_logits, class_names=class_names, threshold=threshold, scores=scores
        )

    def _number_of_classes(self, of_head: str, shape: Any) -> int | None:
        if len(shape) < 2:
            raise ValueError(
                f"The output{of_head} must have one unit per label on its last axis. "
                f"Received: shape={tuple(shape)}"
            )
        return shape[-1]  # type: ignore[no-any-return]

    def _check_head(self, head: str, tensor: Any) -> None:
        super()._check_head(head, tensor)
        threshold, labels = self._setting("threshold", head), tensor.shape[-1]
        if isinstance(threshold, tuple) and labels not in (None, len(threshold)):
            raise ValueError(
                f"`threshold` must be one number, or one for each of the {labels} labels. "
                f"Received: {len(threshold)} numbers"
            )

    def _describe(self, y_pred: Any, head: str) -> dict[str, Any]:
        probabilities = ops.cast(y_pred, probabilities_dtype(y_pred))
        if self._setting("from_logits", head):
            probabilities = ops.sigmoid(probabilities)
        threshold = ops.convert_to_tensor(self._setting("threshold", head), probabilities.dtype)
        above = probabilities > threshold
        labels = ops.where(ops.isnan(probabilities), -1, ops.cast(above, "int32"))
        confidence = ops.where(above, probabilities, 1 - probabilities)
        outputs = {
            "probabilities": probabilities,
            "labels": ops.cast(labels, "int32"),
            "confidence": ops.cast(confidence, "float32"),
        }
        if self._setting("scores", head):
            two_classes = ops.stack([1 - probabilities, probabilities], axis=-1)
            outputs.update(self._scores(two_classes, head))
        return outputs


@keras.saving.register_keras_serializable(package="kerasext")
class HeldMultiLabelClassifier(MultiLabelClassifierMixin, HeldModel):
    """What `MultiLabelClassifierModel.from_model` makes of a model without a graph."""


@keras.saving.register_keras_serializable(package="kerasext")
class MultiLabelClassifierModel(FromModel, MultiLabelClassifierMixin, keras.Model):
    """`MultiLabelClassifierMixin` on `keras.Model`, for functional models and trained ones.

    Made from `inputs` and `outputs` like a `keras.Model`, or by `from_model`. A subclass with a
    `call` of its own takes the mixin instead.

    Example:

    ```python
    model = MultiLabelClassifierModel.from_model(trained, threshold=[0.5, 0.5, 0.2])
    ```
    """

    _held = HeldMultiLabelClassifier
