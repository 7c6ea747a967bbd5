"""What a prediction says: mixins for `keras.Model`, and the same as ready-made models."""

from kerasext.models import graph as graph
from kerasext.models.binary_classifier import BinaryClassifierMixin, BinaryClassifierModel
from kerasext.models.classifier import ClassifierMixin, ClassifierModel
from kerasext.models.load_model import load_model
from kerasext.models.multi_label_classifier import (
    MultiLabelClassifierMixin,
    MultiLabelClassifierModel,
)
from kerasext.models.prediction_mixin import PredictionMixin as PredictionMixin

__all__ = [
    "BinaryClassifierMixin",
    "BinaryClassifierModel",
    "ClassifierMixin",
    "ClassifierModel",
    "MultiLabelClassifierMixin",
    "MultiLabelClassifierModel",
    "load_model",
]
