import keras
import numpy as np
import pytest
from keras import layers

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.keras_internals import sharing_state


class Doubled(keras.Sequential):
    """A class with a method of its own."""

    def predict_step(self, *args):
        *state, data = args  # none but on JAX
        return super().predict_step(*state, data * 2)


@pytest.fixture
def model():
    """A model that is compiled, and was trained."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(np.ones((4, 8)), np.ones((4, 3)), verbose=0)
    return model


def test_shared(model, rows):
    """Layers and variables are the same objects; the class is another one."""
    made = sharing_state(Doubled, model)
    assert type(made) is Doubled
    assert all(a is b for a, b in zip(made.variables, model.variables, strict=True))
    assert made.layers == model.layers
    expected = model.predict(rows * 2, verbose=0)
    np.testing.assert_allclose(made.predict(rows, verbose=0), expected, rtol=1e-5)


def test_apart(model, rows):
    """Attributes, `compile` and predict functions are not shared, with a writer neither."""
    expected = model.predict(rows, verbose=0)
    made = sharing_state(Doubled, model)
    assert not made.compiled
    assert not made.run_eagerly
    assert not hasattr(made, "optimizer")
    made.compile("adam", "mse")
    made.attribute = 1
    assert not hasattr(model, "attribute")
    assert type(model.optimizer).__name__ == "SGD"
    assert np.abs(made.predict(rows, verbose=0) - expected).max() > 0.1
    np.testing.assert_array_equal(model.predict(rows, verbose=0), expected)


def test_while_the_other_is_written(model, rows, path):
    """A model whose steps a writer has seen lends none of that to one that shares its state."""
    model.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    made = sharing_state(Doubled, model)
    again = path.with_name("again.h5")
    made.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(again)])
    assert again.exists()


def test_build_is_its_own():
    """An unbuilt model and one that shares its state build themselves."""
    model = keras.Sequential([layers.Dense(3)])
    made = sharing_state(Doubled, model)
    made.build((None, 8))
    assert made.built
    assert not model.built
    assert model(np.ones((1, 8))).shape == (1, 3)
    assert model.layers[-1] is made.layers[-1]
