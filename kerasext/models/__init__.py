"""What a prediction says: mixins for `keras.Model`, and the same as ready-made models."""

from kerasext.models.confidence.stale import warn_if_stale as warn_if_stale
from kerasext.models.fingerprint import fingerprint as fingerprint
from kerasext.models.from_model import FromModel as FromModel
from kerasext.models.heads import graph as graph
from kerasext.models.heads.suggest_tasks import (
    endings as endings,
    reasons as reasons,
    suggest_tasks,
)
from kerasext.models.load_model import load_model
from kerasext.models.mixins import (
    BinaryClassifierMixin,
    ClassifierMixin,
    MultiLabelClassifierMixin,
    RegressorMixin,
)
from kerasext.models.prediction_mixin import PredictionMixin
from kerasext.models.ready_made import (
    BinaryClassifierModel,
    ClassifierModel,
    MultiLabelClassifierModel,
    PredictionModel,
    RegressorModel,
)

__all__ = [
    "BinaryClassifierMixin",
    "BinaryClassifierModel",
    "ClassifierMixin",
    "ClassifierModel",
    "MultiLabelClassifierMixin",
    "MultiLabelClassifierModel",
    "PredictionMixin",
    "PredictionModel",
    "RegressorMixin",
    "RegressorModel",
    "load_model",
    "suggest_tasks",
]
