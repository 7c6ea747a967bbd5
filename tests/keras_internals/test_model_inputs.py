"""What a model takes is read off it, with a graph or without."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasext.keras_internals.model_inputs import (
    fixed_batch_size,
    random_states,
    stateful_layers,
    takes_dict,
)
from kerasext.models import ClassifierModel

X = np.zeros((4, 5, 3), "float32")


class Recurrent(keras.Model):
    """A model without a graph, of a tensor or of a dict of one."""

    def __init__(self, *, stateful, key=None):
        super().__init__()
        self.key = key
        self.lstm = layers.LSTM(2, stateful=stateful)

    def call(self, x):
        return self.lstm(x if self.key is None else x[self.key])


def functional(shape, **options):
    """A recurrent model with a graph."""
    inputs = keras.Input(batch_shape=shape)
    return keras.Model(inputs, layers.LSTM(2, **options)(inputs))


def built(model, x=X):
    """The model after its first call."""
    model(x)
    return model


MODELS = {
    "any size": (lambda: functional((None, 5, 3)), None, False),
    "inputs of 4": (lambda: functional((4, 5, 3)), 4, False),
    "inputs and a state of 4": (lambda: functional((4, 5, 3), stateful=True), 4, True),
    "a state of 4": (lambda: built(Recurrent(stateful=True)), 4, True),
    "a state that is not built": (lambda: Recurrent(stateful=True), None, True),
    "no state": (lambda: built(Recurrent(stateful=False)), None, False),
    "held": (lambda: ClassifierModel.from_model(built(Recurrent(stateful=True))), 4, True),
}


@pytest.mark.parametrize("kind", MODELS)
def test_fixed_batch_size(kind):
    """The size is that of the inputs, or of the state that layers have for each row."""
    make, size, is_stateful = MODELS[kind]
    model = make()
    assert fixed_batch_size(model) == size
    assert bool(stateful_layers(model)) is is_stateful


def test_takes_dict():
    """A model without a graph is asked by a symbolic call, and keeps its dict in doubt."""
    of_dict = built(Recurrent(stateful=False, key="a"), {"a": X})
    of_tensor = built(Recurrent(stateful=False))
    for model, expected in ((of_dict, True), (of_tensor, False)):
        assert takes_dict(model, {"a": X}) is expected
        assert takes_dict(ClassifierModel.from_model(model), {"a": X}) is expected
    assert takes_dict(of_tensor, {"a": np.zeros((4, 7), "float32")})  # it takes neither
    inputs = keras.Input((3,), name="a")
    assert takes_dict(keras.Model({"a": inputs}, inputs[:, :1]), {"a": X[:, 0]})
    assert not takes_dict(keras.Model([inputs], inputs[:, :1]), {"a": X[:, 0]})


def test_random_states(rows):
    """A layer that draws numbers shows it, and one that could but does not stays the same."""

    class Noisy(keras.Model):
        def __init__(self):
            super().__init__()
            self.noise = layers.GaussianNoise(1.0, seed=1)
            self.dropout = layers.Dropout(0.5, seed=1)

        def call(self, x):
            return self.noise(self.dropout(x, training=False), training=True)

    model = Noisy()
    model.predict(rows, verbose=0)
    before = dict(random_states(model))
    model.predict(rows, verbose=0)
    changed = [of for of, state in random_states(model) if state != before[of]]
    assert changed == [id(model.noise.seed_generator)]
