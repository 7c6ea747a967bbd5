"""A mixin for each task, which heads have that `tasks` does not name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kerasext.keras_internals import cooperative
from kerasext.models.heads.tasks import TASKS
from kerasext.models.prediction_mixin import PredictionMixin
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

    What `calibrate`, `conformalize` and `abstain` fit changes and adds outputs as in
    `PredictionMixin`.

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
        tasks: Dict from head to another task, for a model whose heads differ; see
            `PredictionMixin`. Defaults to `None`.

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
    _settings = (*TASKS["classifier"].settings, "tasks")

    @cooperative
    def __init__(
        self,
        *args: Any,
        from_logits: bool | Mapping[str, bool] | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        top_k: int | Mapping[str, int] | None = None,
        scores: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        tasks: str | Mapping[str, str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            from_logits=from_logits,
            class_names=class_names,
            top_k=top_k,
            scores=scores,
            tasks=tasks,
            **kwargs,
        )


class BinaryClassifierMixin(PredictionMixin):
    """Makes `predict` of a binary classifier return probabilities, labels and confidence.

    The model has one unit on its last axis, the probability (or logit) of class 1. As in
    scikit-learn two columns come out:

    - `probabilities`: shape `(batch, ..., 2)`, float32 (float64 for a float64 model).
    - `labels`: shape `(batch, ...)`, int32. 1 where the probability of class 1 is greater than
      `threshold`, -1 where it is NaN, and 0 otherwise.
    - `confidence`: shape `(batch, ...)`, float32 in [0, 1]. The probability of the label given,
      which is below 0.5 for some rows if `threshold` is not 0.5; NaN where the probability is.

    By the names in `scores` also:

    - `entropy`: shape `(batch, ...)`, float32, from 0 to `log(2)`. `-sum(p * log(p))` of the two
      probabilities in nats, as in section 6 of Shannon, "A Mathematical Theory of Communication"
      (1948), where `0 * log(0)` is 0; NaN where the probability is.
    - `margin`: shape `(batch, ...)`, float32 in [0, 1]. The difference of the two probabilities,
      whatever the `threshold`; NaN where the probability is.

    What `calibrate`, `conformalize` and `abstain` fit changes and adds outputs as in
    `PredictionMixin`.

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
        tasks: Dict from head to another task, for a model whose heads differ; see
            `PredictionMixin`. Defaults to `None`.

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
    _settings = (*TASKS["binary"].settings, "tasks")

    @cooperative
    def __init__(
        self,
        *args: Any,
        from_logits: bool | Mapping[str, bool] | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        threshold: float | Mapping[str, float] | None = None,
        scores: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        tasks: str | Mapping[str, str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            from_logits=from_logits,
            class_names=class_names,
            threshold=threshold,
            scores=scores,
            tasks=tasks,
            **kwargs,
        )


class MultiLabelClassifierMixin(PredictionMixin):
    """Makes `predict` of a multi-label classifier return probabilities, labels and confidence.

    The model has one unit per label on its last axis, each decided on its own:

    - `probabilities`: shape `(batch, ..., labels)`, float32 (float64 for a float64 model).
    - `labels`: same shape, int32 indicators. 1 where the probability is greater than `threshold`,
      -1 where it is NaN, and 0 otherwise.
    - `confidence`: same shape, float32 in [0, 1]. The probability p of an indicator 1, 1 - p of an
      indicator 0; NaN where the probability is.

    By the names in `scores` also, of each label on its own:

    - `entropy`: same shape, float32, from 0 to `log(2)`. `-p * log(p) - (1 - p) * log(1 - p)` in
      nats, as in section 6 of Shannon, "A Mathematical Theory of Communication" (1948), where
      `0 * log(0)` is 0; NaN where the probability is.
    - `margin`: same shape, float32 in [0, 1]. `|2 * p - 1|`, whatever the `threshold`; NaN where
      the probability is.

    What `calibrate`, `conformalize` and `abstain` fit changes and adds outputs as in
    `PredictionMixin`.

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
        tasks: Dict from head to another task, for a model whose heads differ; see
            `PredictionMixin`. Defaults to `None`.

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
    _settings = (*TASKS["multilabel"].settings, "tasks")

    @cooperative
    def __init__(
        self,
        *args: Any,
        from_logits: bool | Mapping[str, bool] | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        threshold: float | Sequence[float] | Mapping[str, float | Sequence[float]] | None = None,
        scores: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        tasks: str | Mapping[str, str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            from_logits=from_logits,
            class_names=class_names,
            threshold=threshold,
            scores=scores,
            tasks=tasks,
            **kwargs,
        )


class RegressorMixin(PredictionMixin):
    """Makes `predict` of a regressor return predictions, with their scale if the model yields it.

    The model has one unit per number on its last axis:

    - `prediction`: shape `(batch, ...)` for one unit, `(batch, ..., k)` for k units; float32
      (float64 for a float64 model).

    With `scale` the first half of the units are the numbers, and the second half says how far each
    may be off:

    - `scale`: the standard deviation, shape and dtype of `prediction`.

    List the mixin before the Keras class. A class whose own `predict_step` calls neither
    `super().predict_step` nor `postprocess` hides the mixin, and a warning says so. Settings may
    also be class attributes, which `keras.models.clone_model` keeps where it keeps the class: of a
    Sequential it makes a plain one.

    Args:
        scale: String. `"std"` if the second half of the units are standard deviations, `"log_std"`
            if they are their natural logarithms; or a dict of them by head. Defaults to `None`, for
            a model that yields numbers only.
        tasks: Dict from head to another task, for a model whose heads differ; see
            `PredictionMixin`. Defaults to `None`.

    Raises:
        TypeError: If the mixin stands right of the Keras class.
        ValueError: If the model's output is not what the settings declare, as an odd number of
            units with `scale`.

    Example:

    ```python
    model = RegressorModel(inputs, keras.layers.Dense(2)(features), scale="log_std")
    outputs = model.predict(x)
    outputs["prediction"] - 2 * outputs["scale"], outputs["prediction"] + 2 * outputs["scale"]
    ```
    """

    scale: Any = SETTINGS["scale"].default

    task = "regressor"
    _settings = (*TASKS["regressor"].settings, "tasks")

    @cooperative
    def __init__(
        self,
        *args: Any,
        scale: str | Mapping[str, str] | None = None,
        tasks: str | Mapping[str, str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, scale=scale, tasks=tasks, **kwargs)
