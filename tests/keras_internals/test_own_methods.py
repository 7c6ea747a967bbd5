import keras
import pytest

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.keras_internals.own_methods import PREDICTION_METHODS, listed, own_methods
from kerasext.models import BinaryClassifierMixin, ClassifierMixin, ClassifierModel


class Scaled(keras.Model):
    """A model that prepares its data in `predict`, as those of KerasHub do."""

    def predict(self, x, **kwargs):
        return super().predict(x / 255, **kwargs)

    def predict_on_batch(self, x):
        return super().predict_on_batch(x / 255)


class Averaging(keras.Model):
    """A model with a step of its own."""

    def predict_step(self, *args):
        return super().predict_step(*args)


class Preparing:
    """A mixin of a user."""

    def predict_on_batch(self, x):
        return super().predict_on_batch(x / 255)


class Plain(keras.Model):
    """A model whose class only names Keras's own method again."""

    predict = keras.Model.predict


def functional(model_class=keras.Model):
    """A functional model of a class."""
    inputs = keras.Input((8,))
    return model_class(inputs, keras.layers.Dense(3, activation="softmax")(inputs))


OWN = {
    "functional": (functional, {}),
    "sequential": (keras.Sequential, {}),
    "Keras's under its name": (Plain, {}),
    "ready-made": (lambda: functional(ClassifierModel), {}),
    "held": (lambda: ClassifierModel.from_model(Plain()), {}),
    "mixin": (type("M", (ClassifierMixin, Plain), {}), {}),
    "two mixins": (type("M", (type("N", (BinaryClassifierMixin, Plain), {}),), {}), {}),
    "predict": (lambda: functional(Scaled), {"predict": Scaled, "predict_on_batch": Scaled}),
    "predict right of a mixin": (
        lambda: functional(type("M", (ClassifierMixin, Scaled), {})),
        {"predict": Scaled, "predict_on_batch": Scaled},
    ),
    "step right of a mixin": (
        type("M", (ClassifierMixin, Averaging), {}),
        {"predict_step": Averaging},
    ),
    "a user's mixin": (
        type("M", (ClassifierMixin, Preparing, keras.Model), {}),
        {"predict_on_batch": Preparing},
    ),
}


@pytest.mark.parametrize(("make", "expected"), OWN.values(), ids=OWN)
def test_classes(make, expected):
    """Methods of classes count with the class that has them, but not Keras's, and no mixin's."""
    assert own_methods(make(), *PREDICTION_METHODS) == expected


@pytest.mark.parametrize("make", [functional, lambda: functional(ClassifierModel)])
@pytest.mark.parametrize("name", sorted({*PREDICTION_METHODS} - {"make_predict_function"}))
def test_instances(make, name):
    """A method that was set on the model itself counts, until it is deleted."""
    model = make()
    setattr(model, name, len)
    assert own_methods(model, *PREDICTION_METHODS) == {name: None}
    delattr(model, name)
    assert own_methods(model, *PREDICTION_METHODS) == {}


def test_models_that_have_predicted(rows):
    """What Keras itself sets on a model is not the model's own."""
    model = functional(ClassifierModel)
    model.compile("sgd", "mse")
    model.predict(rows, verbose=0)
    model.predict_on_batch(rows)
    assert own_methods(model, *PREDICTION_METHODS) == {}


def test_while_a_writer_writes(rows, path):
    """What a writer sets on the model that it watches is not the model's own."""
    model = functional()
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_predict_batch_begin=lambda *_, **__: seen.append(own_methods(model, *PREDICTION_METHODS))
    )
    writer = HDF5PredictionWriter(path, accumulate=False)
    model.predict(rows, verbose=0, callbacks=[writer, watch])
    assert seen == [{}] * 3


def test_listed():
    """A message names the methods and where they come from."""
    own = {"predict": Scaled, "predict_step": None}
    assert listed(own) == "`predict` of Scaled and `predict_step` set on the model itself"
