"""What the tests of Ray Data share: it is an extra, and a model in a file."""

import os

import keras
import pytest

# Ray lets its workers wait for everybody else: beside other tests their imports take minutes.
os.environ.setdefault("RAY_worker_niceness", "0")

pytest.importorskip("ray.data")

from kerasext.models import ClassifierModel

CLASS_NAMES = ["cat", "dog", "eel"]


@pytest.fixture
def classifier():
    """A model with a mixin, that names its classes."""
    layers = [keras.Input((8,)), keras.layers.Dense(3, activation="softmax")]
    return ClassifierModel.from_model(keras.Sequential(layers), class_names=CLASS_NAMES)


@pytest.fixture
def model_path(classifier, tmp_path):
    """The file of that model."""
    classifier.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"
