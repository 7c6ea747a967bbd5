import keras
import numpy as np
import pytest

from kerasext.cli.messages import InputError
from kerasext.cli.wrap_model import wrap_model
from kerasext.models import ClassifierModel


def dense(units, activation):
    """A model that ends in such a layer."""
    layer = keras.layers.Dense(units, activation=activation)
    return keras.Sequential([keras.Input((8,)), layer])


def dressed(model, kind=None, *, from_logits=False, class_names=None):
    """What `wrap_model` makes, and says."""
    return wrap_model(model, kind, from_logits=from_logits, class_names=class_names)


@pytest.mark.parametrize(
    ("units", "activation", "from_logits", "task"),
    [
        (4, "softmax", False, "classifier"),
        (1, "sigmoid", False, "binary"),
        (3, "sigmoid", False, "multilabel"),
        (3, "relu", False, None),
        (3, None, False, None),
        (1, "softmax", False, None),
        (3, None, True, "classifier"),
        (1, None, True, "binary"),
    ],
)
def test_suggestion(units, activation, from_logits, task):
    """The last layer says what a model is; each other kind that is named can be chosen."""
    model, said = dressed(dense(units, activation), from_logits=from_logits)
    assert getattr(model, "task", None) == task
    others = {"binary", "plain"} if units == 1 else {"classifier", "multilabel", "plain"}
    others -= {task or "plain"}
    assert set(said.split("--as ")[1].split(" ")[0].split("|")) == others
    for kind in others:
        model, _ = dressed(dense(units, activation), kind)
        assert getattr(model, "task", "plain") == kind


def test_choice(rows):
    """The user's choice is taken."""
    plain = dense(3, "sigmoid")
    assert dressed(plain, "plain")[0] is plain
    model, _ = dressed(plain, "multilabel", class_names=["a", "b", "c"])
    np.testing.assert_array_equal(
        model.predict(rows, verbose=0)["probabilities"], plain.predict(rows, verbose=0)
    )
    assert list(model.class_names) == ["a", "b", "c"]


def test_heads(rows):
    """Heads that suggest the same are dressed in its mixin, others get a task each."""
    inputs = keras.Input((8,))
    softmax = keras.layers.Dense(3, activation="softmax")
    same = {name: keras.layers.Dense(3, activation="softmax")(inputs) for name in "ab"}
    assert dressed(keras.Model(inputs, same))[0].task == "classifier"
    mixed = {"a": softmax(inputs), "b": keras.layers.Dense(1, activation="sigmoid")(inputs)}
    mixed["c"] = keras.layers.Dense(4)(inputs)
    model, said = dressed(keras.Model(inputs, mixed))
    assert model.prediction_metadata()["task"] == {"a": "classifier", "b": "binary", "c": None}
    assert "stored as 'a' classifier, 'b' binary, 'c' plain" in said
    assert "'a' softmax over 3 units, 'b' sigmoid over 1 unit, 'c' linear over 4 units" in said
    assert "; --as plain chooses otherwise" in said
    assert model.predict(rows, verbose=0)["c"].shape == (70, 4)
    model, _ = dressed(keras.Model(inputs, mixed), from_logits=True)
    assert model.prediction_metadata()["from_logits"] == {"c": True}
    assert dressed(model)[0] is model


def test_regressor(rows):
    """A regressor is never suggested, and can be asked for."""
    model, said = dressed(dense(1, None), "regressor")
    assert model.predict(rows, verbose=0)["prediction"].shape == (70,)
    assert "stored as regressor" in said


def test_model_with_a_mixin():
    """A model that has a mixin keeps it, and takes settings."""
    inputs = keras.Input((8,))
    own = ClassifierModel(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    model, said = dressed(own, class_names=["cat", "dog"])
    assert model is own
    assert list(model.class_names) == ["cat", "dog"]
    assert "is a classifier" in said
    with pytest.raises(InputError, match=r"is a classifier model already.*--as binary"):
        dressed(own, "binary")


def test_settings_without_a_mixin():
    """Names of classes have no place in what is stored plain; kinds that take them are named."""
    with pytest.raises(InputError, match=r"--class-names can't.*--as classifier\|multilabel"):
        dressed(dense(3, "relu"), from_logits=True, class_names=["a", "b", "c"])


@pytest.mark.parametrize("name", ["predict", "predict_on_batch", "predict_step"])
@pytest.mark.parametrize("kind", [None, "classifier", "multilabel"])
def test_own_methods(name, kind):
    """A model with methods of its own keeps them; of its own step the graph tells no task."""

    def own(self, *args, **kwargs):
        return getattr(keras.Model, name)(self, *args, **kwargs)

    inputs = keras.Input((8,))
    own_class = type("Own", (keras.Model,), {name: own})
    model = own_class(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    found, said = dressed(model, kind)
    assert isinstance(found, own_class)
    if name == "predict_step" and kind is None:
        assert found is model
        assert "stored plain, because its own `predict_step` may return anything" in said
    else:
        assert found.prediction_metadata()["task"] == (kind or "classifier")
    assert dressed(model, "plain")[0] is model
