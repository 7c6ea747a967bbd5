"""The mixins on `keras.Model`, for functional models and trained ones."""

from __future__ import annotations

import keras

from kerasext.models.from_model import FromModel
from kerasext.models.mixins import (
    BinaryClassifierMixin,
    ClassifierMixin,
    MultiLabelClassifierMixin,
    RegressorMixin,
)
from kerasext.models.prediction_mixin import PredictionMixin


@keras.saving.register_keras_serializable("kerasext")
class PredictionModel(PredictionMixin, FromModel, keras.Model):
    """`PredictionMixin` on `keras.Model`: a model with a task per head.

    Made from `inputs` and `outputs` like a `keras.Model`, or by `from_model`. A subclass with a
    `call` of its own takes the mixin instead.

    Example:

    ```python
    model = PredictionModel(
        inputs,
        {"kind": kind, "sick": sick, "age": age, "embedding": embedding},
        tasks={"kind": "classifier", "sick": "binary", "age": "regressor"},
    )
    model = PredictionModel.from_model(trained, tasks="auto")
    ```
    """


@keras.saving.register_keras_serializable("kerasext")
class ClassifierModel(ClassifierMixin, FromModel, keras.Model):
    """`ClassifierMixin` on `keras.Model`, for functional models and trained ones.

    Made from `inputs` and `outputs` like a `keras.Model`, or by `from_model`. A subclass with a
    `call` of its own takes the mixin instead.

    Example:

    ```python
    model = ClassifierModel(inputs, outputs, class_names=["cat", "dog"])
    model = ClassifierModel.from_model(trained, from_logits=True)
    ```
    """


@keras.saving.register_keras_serializable("kerasext")
class BinaryClassifierModel(BinaryClassifierMixin, FromModel, keras.Model):
    """`BinaryClassifierMixin` on `keras.Model`, for functional models and trained ones.

    Made from `inputs` and `outputs` like a `keras.Model`, or by `from_model`. A subclass with a
    `call` of its own takes the mixin instead.

    Example:

    ```python
    model = BinaryClassifierModel.from_model(trained, threshold=0.2)
    ```
    """


@keras.saving.register_keras_serializable("kerasext")
class MultiLabelClassifierModel(MultiLabelClassifierMixin, FromModel, keras.Model):
    """`MultiLabelClassifierMixin` on `keras.Model`, for functional models and trained ones.

    Made from `inputs` and `outputs` like a `keras.Model`, or by `from_model`. A subclass with a
    `call` of its own takes the mixin instead.

    Example:

    ```python
    model = MultiLabelClassifierModel.from_model(trained, threshold=[0.5, 0.5, 0.2])
    ```
    """


@keras.saving.register_keras_serializable("kerasext")
class RegressorModel(RegressorMixin, FromModel, keras.Model):
    """`RegressorMixin` on `keras.Model`, for functional models and trained ones.

    Made from `inputs` and `outputs` like a `keras.Model`, or by `from_model`. A subclass with a
    `call` of its own takes the mixin instead.

    Example:

    ```python
    model = RegressorModel.from_model(trained, scale="log_std")
    ```
    """
