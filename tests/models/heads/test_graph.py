import contextlib
import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasext.models import (
    BinaryClassifierMixin,
    BinaryClassifierModel,
    ClassifierMixin,
    ClassifierModel,
    MultiLabelClassifierModel,
)


@contextlib.contextmanager
def told(match):
    """Checks that the user is told once; what Keras says to developers does not count."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        yield
    assert len(caught) == 1
    assert re.search(match, str(caught[0].message))


class SequentialClassifier(ClassifierMixin, keras.Sequential):
    pass


def functional(*stack, units=3):
    """Inputs, and outputs of a dense layer followed by the layers or operations given."""
    inputs = keras.Input((8,))
    tensor = layers.Dense(units)(inputs)
    for step in stack:
        tensor = step(tensor)
    return inputs, tensor


def nested(activation, depth=1):
    """A functional model that ends with the activation, inside `depth - 1` others."""
    model = keras.Model(*functional(layers.Activation(activation)))
    for _ in range(depth - 1):
        inputs = keras.Input((8,))
        model = keras.Model(inputs, model(inputs))
    return model


def nested_sequential(activation):
    """A Sequential model that ends with the activation."""
    return keras.Sequential([keras.Input((3,)), layers.Dense(3, activation=activation)])


ENDS_IN = {
    "dense": lambda name: layers.Dense(3, activation=name),
    "conv": lambda name: keras.Sequential(
        [keras.Input((3,)), layers.Reshape((1, 3)), layers.Conv1D(3, 1, activation=name)]
    ),
    "activation layer": layers.Activation,
    "function": lambda name: layers.Activation(keras.activations.get(name)),
    "operation": lambda name: getattr(ops, name),
    "nested sequential": nested_sequential,
    "cast to float32": lambda name: keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(3, activation=name),
            layers.Activation("linear", dtype="float32"),
        ]
    ),
}


@pytest.mark.parametrize("end", ENDS_IN)
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_logits_that_are_none(name, end):
    """`from_logits=True` is refused when the model is made, if its last layer squashes."""
    with pytest.raises(ValueError, match=f"the last layer applies {name}"):
        ClassifierModel(*functional(ENDS_IN[end](name)), from_logits=True)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_logits_that_are_none_in_a_nested_model(depth):
    """`from_logits=True` is refused if the model nested as last layer ends with a softmax."""
    inputs = keras.Input((8,))
    outputs = nested("softmax", depth)(inputs)
    with pytest.raises(ValueError, match="the last layer applies softmax"):
        ClassifierModel(inputs, outputs, from_logits=True)


def test_softmax_layer():
    """`from_logits=True` is refused for a `Softmax` layer."""
    with pytest.raises(ValueError, match="the last layer applies softmax"):
        ClassifierModel(*functional(layers.Softmax()), from_logits=True)


@pytest.mark.parametrize("built", [True, False])
def test_sequential_that_squashes(rows, built):
    """A Sequential that ends with a softmax refuses `from_logits=True` at the first predict."""
    first = [keras.Input((8,))] if built else []
    model = SequentialClassifier([*first, layers.Dense(3, activation="softmax")], from_logits=True)
    with pytest.raises(ValueError, match="the last layer applies softmax"):
        model.predict(rows, verbose=0)


def test_sequential_that_grows(rows):
    """A Sequential is judged by its last layer when it predicts, not when it is made."""
    model = SequentialClassifier([keras.Input((8,)), layers.Dense(3)])
    model.add(layers.Softmax())
    outputs = model.predict(rows, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=-1), 1, 1e-5)


@pytest.mark.parametrize("model_class", [BinaryClassifierModel, MultiLabelClassifierModel])
def test_sigmoid_is_no_logit(model_class):
    """The mixins with a sigmoid refuse `from_logits=True` after a sigmoid."""
    with pytest.raises(ValueError, match="the last layer applies sigmoid"):
        model_class(*functional(layers.Activation("sigmoid"), units=1), from_logits=True)


@pytest.mark.parametrize(
    ("model_class", "units", "activation", "remedy"),
    [
        (ClassifierModel, 3, "linear", "from_logits=True"),
        (ClassifierModel, 3, "sigmoid", "use the mixin that fits"),
        (BinaryClassifierModel, 1, "linear", "from_logits=True"),
        (MultiLabelClassifierModel, 3, "linear", "from_logits=True"),
        (MultiLabelClassifierModel, 3, "softmax", "use the mixin that fits"),
    ],
)
def test_one_warning(rows, model_class, units, activation, remedy):
    """A last layer that yields no such probabilities is told once, with the remedy."""
    model = model_class(*functional(layers.Dense(units, activation=activation)))
    with told(f"{remedy}.*Received: activation='{activation}'"):
        model.predict(rows, batch_size=23, verbose=0)
    model.predict(rows, batch_size=23, verbose=0)
    model.predict_on_batch(rows[:5])
    model.class_names = None  # a new setting means a new trace
    model.predict(rows, batch_size=7, verbose=0)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_one_warning_of_a_sequential(rows, built, run_eagerly):
    """A Sequential with a linear last layer is told once, however many steps there are."""
    model = SequentialClassifier([*([keras.Input((8,))] if built else []), layers.Dense(3)])
    model.compile(run_eagerly=run_eagerly)
    with told("from_logits=True"):
        model.predict(rows, batch_size=23, verbose=0)
    model.predict(rows, batch_size=23, verbose=0)


def test_a_warning_names_the_head(rows):
    """Of several heads only the linear one is told, by name."""
    inputs = keras.Input((8,))
    outputs = {"a": layers.Dense(3, activation="softmax")(inputs), "b": layers.Dense(2)(inputs)}
    with told("of head 'b'"):
        ClassifierModel(inputs, outputs).predict(rows, verbose=0)


@pytest.mark.parametrize(
    "last",
    [
        layers.ReLU(),
        layers.Dense(3, activation=lambda x: ops.softmax(x, axis=-1)),
        layers.Lambda(ops.softmax),
        layers.Rescaling(0.5),
        ops.abs,
        layers.Dropout(0.1),
    ],
    ids=["relu", "lambda", "Lambda", "Rescaling", "operation", "dropout"],
)
@pytest.mark.parametrize("from_logits", [True, False])
def test_unknown_last_layer(rows, last, from_logits):
    """Nothing is said of a last layer that may well yield what the settings say."""
    model = ClassifierModel(*functional(last), from_logits=from_logits)
    assert model.predict(rows, verbose=0)["labels"].shape == (70,)


def test_probabilities_cast_to_float32(rows):
    """A linear `Activation` that only casts, as for mixed precision, hides no softmax."""
    last = [layers.Dense(3, activation="softmax"), layers.Activation("linear", dtype="float32")]
    outputs = ClassifierModel(*functional(*last)).predict(rows, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=-1), 1, 1e-5)


def test_subclass_is_not_judged(rows):
    """Nothing is said of a subclass with `call`, whose last layer is not known."""

    class Net(BinaryClassifierMixin, keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(1)

        def call(self, inputs):
            return ops.sigmoid(self.dense(inputs))

    for from_logits in (True, False):
        assert Net(from_logits=from_logits).predict(rows, verbose=0)["labels"].shape == (70,)


@pytest.mark.parametrize(
    ("activation", "from_logits", "transform"),
    [("linear", False, lambda y: ops.softmax(y / 2)), ("softmax", True, lambda y: ops.log(y) / 2)],
    ids=["to probabilities", "to logits"],
)
def test_own_postprocess_may_transform(rows, activation, from_logits, transform):
    """What an own `postprocess` made of the model's output is not judged by the last layer."""

    class Calibrated(ClassifierModel):
        def postprocess(self, y_pred):
            return super().postprocess(transform(y_pred))

    model = Calibrated(*functional(layers.Activation(activation)), from_logits=from_logits)
    outputs = model.predict(rows, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=-1), 1, 1e-5)


def test_list_of_one_output(rows):
    """A list of one output is one output, for settings too, as Keras itself returns it."""
    inputs, outputs = functional(layers.Softmax())
    with pytest.raises(ValueError, match="one output only"):
        ClassifierModel(inputs, [outputs], class_names={"0": ["a", "b", "c"]})
    with pytest.raises(ValueError, match="the last layer applies softmax"):
        ClassifierModel(inputs, [outputs], from_logits=True)
    model = ClassifierModel(inputs, [outputs], class_names=["a", "b", "c"])
    assert set(model.predict(rows, verbose=0)) == {"probabilities", "labels", "confidence"}


def test_list_of_one_linear_output(rows):
    """The last layer of a list of one output is judged."""
    inputs, outputs = functional()
    with told("from_logits=True"):
        ClassifierModel(inputs, [outputs]).predict(rows, verbose=0)
