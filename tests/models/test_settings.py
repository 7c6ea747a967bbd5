import copy
import functools
import inspect
import itertools
import json
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasext.models import (
    ClassifierMixin,
    ClassifierModel,
    MultiLabelClassifierMixin,
    MultiLabelClassifierModel,
)

SETTINGS = {
    "from_logits": True,
    "class_names": ("rain", "wind", "snow"),
    "scores": ("entropy", "margin"),
    "threshold": (0.2, 0.5, 0.75),
}
BY_HEAD = {
    "from_logits": {"0": True},
    "class_names": {"0": ("rain", "wind", "snow")},
    "scores": {"0": ("margin",)},
    "threshold": {"0": (0.2, 0.5, 0.75)},
}


@keras.saving.register_keras_serializable(package="test_settings")
class Weather(MultiLabelClassifierMixin, keras.Model):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="test_settings")
class SequentialWeather(MultiLabelClassifierMixin, keras.Sequential):
    pass


@keras.saving.register_keras_serializable(package="test_settings")
class FunctionalWeather(MultiLabelClassifierMixin, keras.Model):
    pass


@keras.saving.register_keras_serializable(package="test_settings")
class Defaults(MultiLabelClassifierModel):
    from_logits = True
    class_names = ["rain", "wind", "snow"]  # noqa: RUF012 - as users write it
    scores = ["margin", "entropy"]  # noqa: RUF012
    threshold = [0.2, 0.5, 0.75]  # noqa: RUF012


class Echo(MultiLabelClassifierMixin, keras.Model):
    """Yields its input, so that a test says what the model computed."""

    def call(self, inputs):
        return inputs


class TwoHeads(ClassifierMixin, keras.Model):
    """Yields the first three and the last two of five columns, as a dict."""

    def call(self, inputs):
        return {"kind": inputs[:, :3], "size": inputs[:, 3:]}


def functional(model_class, **settings):
    """A functional model of the class with three logits."""
    inputs = keras.Input((8,))
    return model_class(inputs, layers.Dense(3)(inputs), **settings)


def two_heads(**settings):
    """A functional model with a list of two heads of three logits."""
    inputs = keras.Input((8,))
    heads = [layers.Dense(3)(inputs), layers.Dense(3, activation="sigmoid")(inputs)]
    return MultiLabelClassifierModel(inputs, heads, **settings)


MODELS = {
    "subclass": lambda: Weather(**SETTINGS),
    "functional": lambda: functional(FunctionalWeather, **SETTINGS),
    "ready-made": lambda: functional(MultiLabelClassifierModel, **SETTINGS),
    "sequential": lambda: SequentialWeather([keras.Input((8,)), layers.Dense(3)], **SETTINGS),
    "unbuilt sequential": lambda: SequentialWeather([layers.Dense(3)], **SETTINGS),
    "class attributes": lambda: functional(Defaults),
    "by head": lambda: two_heads(**BY_HEAD),
}


def settings_of(model):
    """The settings, with plain dicts."""
    values = {name: getattr(model, name) for name in SETTINGS}
    return {name: dict(v) if hasattr(v, "items") else v for name, v in values.items()}


@pytest.fixture(params=MODELS)
def model(request, rows):
    """A model with settings that are not the defaults, and weights."""
    model = MODELS[request.param]()
    model(rows)
    return model


def save_and_load(model, folder):
    """The model read back from a `.keras` file."""
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


ROUND_TRIPS = {
    "keras file": save_and_load,
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),  # noqa: S301 - its own bytes
}


@pytest.mark.parametrize("round_trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_round_trip(model, rows, tmp_path, round_trip):
    """A model saved or copied has its class, settings and weights, and predicts the same."""
    again = round_trip(model, tmp_path)
    assert type(again) is type(model)
    assert settings_of(again) == settings_of(model)
    for expected, weight in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    expected, outputs = (m.predict(rows, batch_size=23, verbose=0) for m in (model, again))
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)


def test_config_round_trip(model):
    """The config of a model is JSON, and makes a model with the same settings."""
    config = json.loads(json.dumps(model.get_config()))
    again = type(model).from_config(config)
    assert type(again) is type(model)
    assert settings_of(again) == settings_of(model)


def test_config_of_an_older_version():
    """A config without the settings makes a model with the defaults of its class."""
    config = {"name": "weather", "units": 2}
    assert Weather.from_config(config).threshold == 0.5


@pytest.mark.parametrize("style", ["functional", "ready-made"])
def test_clone_drops_options(style):
    """`clone_model` makes functional models without keywords, so the options are the class's."""
    clone = keras.models.clone_model(MODELS[style]())
    assert isinstance(clone, MultiLabelClassifierMixin)
    assert settings_of(clone) == {
        "from_logits": False,
        "class_names": None,
        "scores": (),
        "threshold": 0.5,
    }


@pytest.mark.parametrize("style", ["class attributes", "subclass"])
def test_clone_keeps_class_attributes_and_configs(style):
    """`clone_model` keeps settings that are class attributes, or in the config of a subclass."""
    assert settings_of(keras.models.clone_model(MODELS[style]())) == SETTINGS


def test_clone_of_a_sequential_is_plain():
    """`clone_model` makes a plain `keras.Sequential` of every Sequential: the mixin is gone."""
    assert type(keras.models.clone_model(MODELS["sequential"]())) is keras.Sequential


def test_class_attributes_give_way():
    """A keyword beats the class attribute, for its instance only."""
    assert functional(Defaults, threshold=0.9).threshold == 0.9
    assert functional(Defaults).threshold == (0.2, 0.5, 0.75)


@pytest.mark.parametrize("compiled", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_setting_after_predict(compiled):
    """A setting assigned to a model takes effect in the next predict."""
    model = Echo(threshold=0.5)
    model.compile(**compiled)
    x = np.array([[0.1, 0.3, 0.6]], "float32")
    predicted = [model.predict(x, verbose=0)["labels"].tolist()]
    for name, value in [("threshold", 0.2), ("threshold", [0.05, 0.5, 0.7]), ("from_logits", True)]:
        setattr(model, name, value)
        predicted.append(model.predict(x, verbose=0)["labels"].tolist())
    assert predicted == [[[0, 0, 1]], [[0, 1, 1]], [[1, 0, 0]], [[1, 1, 0]]]


def test_setting_after_predict_on_batch():
    """A setting assigned to a model takes effect in the next `predict_on_batch`."""
    model = Echo()
    x = np.array([[0.3]], "float32")
    assert model.predict_on_batch(x)["labels"].tolist() == [[0]]
    model.threshold = 0.2
    assert model.predict_on_batch(x)["labels"].tolist() == [[1]]


def test_class_names_after_predict():
    """Class names assigned to a model are checked in the next predict."""
    model = Echo()
    x = np.array([[0.1, 0.3, 0.6]], "float32")
    model.predict(x, verbose=0)
    model.class_names = ["a", "b", "c"]
    model.predict(x, verbose=0)
    assert model.prediction_metadata()["class_names"] == ["a", "b", "c"]
    model.class_names = ["a", "b"]
    with pytest.raises(ValueError, match="Received: 2 names"):
        model.predict(x, verbose=0)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("from_logits", "yes", TypeError),
        ("from_logits", 1, TypeError),
        ("from_logits", {"a": None}, TypeError),
        ("class_names", "abc", TypeError),
        ("class_names", 3, TypeError),
        ("class_names", [], TypeError),
        ("class_names", [1, 2, 3], TypeError),
        ("class_names", ["a", None], TypeError),
        ("class_names", [b"a", b"b"], TypeError),
        ("class_names", {"a", "b"}, TypeError),  # a set has no order
        ("class_names", {"a": "abc"}, TypeError),
        ("class_names", {"a": {"b": "c"}}, TypeError),
        ("class_names", {0: "a", 2: "b"}, ValueError),
        ("class_names", {1: "a", 2: "b"}, ValueError),
        ("class_names", {"a": 0, "b": 0}, ValueError),
        ("class_names", {"h": {"a": 1}}, ValueError),
        ("scores", "entropy", TypeError),
        ("scores", None, TypeError),
        ("scores", 1, TypeError),
        ("scores", ["gini"], ValueError),
        ("scores", ["entropy", 3], ValueError),
        ("scores", {"a": ["Entropy"]}, ValueError),
        ("threshold", -0.1, ValueError),
        ("threshold", 1.5, ValueError),
        ("threshold", float("nan"), ValueError),
        ("threshold", [], ValueError),
        ("threshold", [0.5, 2.0], ValueError),
        ("threshold", [[0.5]], ValueError),
        ("threshold", None, ValueError),
        ("threshold", "half", ValueError),
        ("threshold", "0.5", ValueError),
        ("threshold", {"a": 2.0}, ValueError),
    ],
)
def test_wrong_values(name, value, error):
    """A wrong value is refused when assigned, by name, and the old one stays."""
    model = Echo(**SETTINGS)
    with pytest.raises(error, match=f"`{name}` must be .*Received: {name}="):
        setattr(model, name, value)
    assert settings_of(model) == SETTINGS


def test_wrong_value_of_a_keyword():
    """A wrong value is refused by the constructor."""
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\]"):
        Echo(threshold=20)


def test_unknown_score():
    """A score that does not exist is refused with those that do."""
    with pytest.raises(ValueError, match=r"out of \['entropy', 'margin'\].*with 'gini'"):
        Echo(scores=["entropy", "gini"])


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError), ("3", TypeError)],
)
def test_wrong_top_k(value, error):
    """`top_k` is an integer of at least 1, and the old one stays where it is not."""
    model = TwoHeads(top_k=2)
    for wrong in (value, {"kind": value}):
        with pytest.raises(error, match=r"`top_k` must be .*Received: top_k="):
            model.top_k = wrong
    assert model.top_k == 2


@pytest.mark.parametrize(("value", "kept"), [(np.int64(2), 2), (1, 1), (None, None)])
def test_kept_top_k(value, kept):
    """Whatever kind of integer was given, a plain one is kept."""
    top_k = TwoHeads(top_k=value).top_k
    assert (top_k, type(top_k)) == (kept, type(kept))


@pytest.mark.parametrize("top_k", [2, {"0": 3}], ids=str)
@pytest.mark.parametrize("round_trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_round_trip_of_top_k(top_k, rows, tmp_path, round_trip):
    """A classifier saved or copied predicts the same largest classes."""
    inputs = keras.Input((8,))
    heads = [layers.Dense(3, activation="softmax")(inputs) for _ in range(2)]
    model = ClassifierModel(inputs, heads, top_k=top_k)
    again = round_trip(model, tmp_path)
    assert again.top_k == model.top_k == top_k
    expected, outputs = (m.predict(rows, batch_size=23, verbose=0) for m in (model, again))
    assert "top_k_labels" in outputs["0"]
    assert ("top_k_labels" in outputs["1"]) == (top_k == 2)
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("class_names", ["a", "b"], ("a", "b")),
        ("class_names", np.array(["a", "b"]), ("a", "b")),
        ("class_names", (name for name in "ab"), ("a", "b")),
        ("class_names", {1: "b", 0: "a"}, ("a", "b")),
        ("class_names", {"1": "b", "0": "a"}, ("a", "b")),  # as JSON has it
        ("class_names", {"b": 1, "a": np.int64(0)}, ("a", "b")),
        ("class_names", {"1": 1, "7": 0}, ("7", "1")),  # folders of digits
        ("class_names", None, None),
        ("scores", ["margin"], ("margin",)),
        ("scores", ["margin", "entropy", "margin"], ("entropy", "margin")),  # in one order
        ("scores", np.array(["entropy"]), ("entropy",)),
        ("scores", (), ()),
        ("threshold", [0.25, 0.5], (0.25, 0.5)),
        ("threshold", np.array([0.25, 0.5], "float32"), (0.25, 0.5)),
        ("threshold", np.float32(0.25), 0.25),
        ("threshold", 1, 1.0),
        ("from_logits", np.True_, True),
    ],
)
def test_kept_values(name, value, kept):
    """Whatever kind of sequence or number was given, a plain and immutable one is kept."""
    value_kept = getattr(Echo(**{name: value}), name)
    assert value_kept == kept
    assert type(value_kept) is type(kept)
    json.dumps(value_kept)


def test_numbered_names_by_head():
    """Each head may have a dict of numbered names, and heads in a list are numbers themselves."""
    names = {"kind": {0: "a", 1: "b", 2: "c"}, "size": {"s": 1, "r": 0}}
    assert dict(Echo(class_names=names).class_names) == {
        "kind": ("a", "b", "c"),
        "size": ("r", "s"),
    }
    by_position = Echo(class_names={0: ["a", "b"], 1: {0: "c"}}).class_names
    assert dict(by_position) == {"0": ("a", "b"), "1": ("c",)}


UNKNOWN = {"class_name": "'class_names'", "fromlogits": "'from_logits'", "kwargs": None}


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("own_class", [True, False])
def test_misspelt_settings(own_class, unknown):
    """A functional model with a mixin refuses what Keras's constructor ignores."""

    class Own(ClassifierMixin, keras.Model):
        pass

    made = Own if own_class else ClassifierModel
    inputs = keras.Input((8,))
    outputs = layers.Dense(3, activation="softmax")(inputs)
    nearest = f"; the nearest is {UNKNOWN[unknown]}" if UNKNOWN[unknown] else ""
    with pytest.raises(TypeError, match=rf"settings of {made.__name__} are \[.*\]{nearest}\. Rec"):
        made(inputs, outputs, **{unknown: ["a", "b", "c"]})
    with pytest.raises(TypeError, match=f"{nearest}. Received: '{unknown}'"):
        made(inputs=inputs, outputs=outputs, name="zoo", **{unknown: ["a", "b", "c"]})
    model = made(inputs=inputs, outputs=outputs, name="zoo", trainable=False, top_k=2)
    assert (model.name, model.trainable, model.top_k) == ("zoo", False, 2)


def test_dict_is_immutable():
    """Neither the model's dict nor the one it was given changes the setting past the check."""
    given = {"kind": ["a", "b", "c"]}
    model = TwoHeads(class_names=given)
    given["kind"].append("d")
    given["size"] = ["e", "f"]
    with pytest.raises(TypeError):
        model.class_names["kind"] = ["x"]
    assert dict(model.class_names) == {"kind": ("a", "b", "c")}


def test_positions_as_keys(rows):
    """The heads of a list may be given by position, as numbers."""
    model = two_heads(from_logits={0: True}, threshold={1: 0.25})
    outputs = model.predict(rows, verbose=0)
    second = outputs["1"]
    np.testing.assert_array_equal(second["labels"], second["probabilities"] > 0.25)
    assert model.prediction_metadata()["threshold"] == {"1": 0.25}


def test_settings_by_head(rows):
    """A dict gives each head a setting of its own, by its path; other heads have the default."""

    class Heads(MultiLabelClassifierMixin, keras.Model):
        def call(self, inputs):
            p = ops.sigmoid(inputs)
            return {"kind": [p[:, :3], inputs[:, :3]], "size": p[:, 3:]}

    model = Heads(
        from_logits={"kind/1": True},
        threshold={"kind/0": 0.2, "size": [0.1, 0.3, 0.5, 0.7, 0.9]},
        class_names={"kind/0": ["a", "b", "c"], "size": list("vwxyz")},
    )
    outputs = model.predict(rows, verbose=0)
    p = 1 / (1 + np.exp(-np.float64(rows)))
    np.testing.assert_array_equal(outputs["kind"]["0"]["labels"], p[:, :3] > 0.2)
    np.testing.assert_array_equal(outputs["kind"]["1"]["labels"], p[:, :3] > 0.5)
    np.testing.assert_allclose(outputs["kind"]["1"]["probabilities"], p[:, :3], rtol=1e-5)
    np.testing.assert_array_equal(outputs["size"]["labels"], p[:, 3:] > [0.1, 0.3, 0.5, 0.7, 0.9])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"from_logits": {"kindd": True}}, r"the heads \['kind', 'size'\].*for \['kindd'\]"),
        ({"class_names": {"other": ["a"]}}, r"class_names for \['other'\]"),
        ({"class_names": {"kind": ["a", "b"]}}, "3 classes of head 'kind'. Received: 2 names"),
        ({"class_names": ["a", "b"]}, "3 classes of head 'kind'"),
    ],
)
def test_settings_of_no_head(settings, message):
    """Settings for heads that the model lacks, or that do not fit the head, are refused."""
    with pytest.raises(ValueError, match=message):
        TwoHeads(**settings).predict(np.ones((4, 5), "float32"), verbose=0)
    inputs = keras.Input((5,))
    heads = {"kind": ops.softmax(inputs[:, :3]), "size": ops.softmax(inputs[:, 3:])}
    with pytest.raises(ValueError, match=message):
        ClassifierModel(inputs, heads, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_names": {"a": ["x", "y", "z"]}}, "one output only"),
        ({"from_logits": {"a": True}}, "one output only"),
        ({"class_names": ["x", "y"]}, "each of the 3 classes. Received: 2 names"),
        ({"class_names": list("wxyz")}, "each of the 3 classes. Received: 4 names"),
    ],
)
def test_settings_that_do_not_fit(settings, message, rows):
    """Wrong settings are refused: by a functional model when made, by others when they predict."""
    for model_class in (FunctionalWeather, MultiLabelClassifierModel):
        with pytest.raises(ValueError, match=message):
            functional(model_class, **settings)
    stack = [keras.Input((8,)), layers.Dense(3, activation="sigmoid")]
    for model in (Weather(**settings), SequentialWeather(stack, **settings)):
        with pytest.raises(ValueError, match=message):
            model.predict(rows, verbose=0)


def register(cls):
    """Makes a class known to Keras, under its own name."""
    return keras.saving.register_keras_serializable(package="test_settings")(cls)


def dense(units):
    """The inputs and outputs of a functional model of so many classes."""
    inputs = keras.Input((8,))
    return inputs, layers.Dense(units, activation="softmax")(inputs)


class NeedsUnits(keras.Model):
    """A model that Keras can't save, as it does not say how many units it has."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units, activation="softmax")

    def call(self, inputs):
        return self.dense(inputs)


class NeedsLayer(NeedsUnits):
    """Another one, whose default argument is an object."""

    def __init__(self, dense=keras.layers.Dense, **kwargs):
        super().__init__(5, **kwargs)


class OwnConstructor(ClassifierMixin, keras.Model):
    """A class with the mixin, and a constructor that takes an argument of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units, activation="softmax")

    def call(self, inputs):
        return self.dense(inputs)


UNSAVABLE = {
    "own constructor": functools.partial(OwnConstructor, 5),
    "constructor of the base": lambda: type("M", (ClassifierMixin, NeedsUnits), {})(5),
    "below that": lambda: type("N", (type("M", (ClassifierMixin, NeedsUnits), {}),), {})(5),
    "default of the base": type("M", (ClassifierMixin, NeedsLayer), {}),
    "user's mixin": lambda: type("M", (type("Mine", (ClassifierMixin,), {}), NeedsUnits), {})(5),
}


@pytest.mark.parametrize("make", UNSAVABLE.values(), ids=UNSAVABLE)
def test_models_that_keras_does_not_save(make, rows, tmp_path):
    """Keras's own error for a missing `get_config` is raised, as without the mixin."""
    model = make()
    model(rows)
    with pytest.raises(NotImplementedError, match="implement `get_config"):
        model.save(tmp_path / "model.keras")
    with pytest.raises(NotImplementedError):
        model.get_config()
    assert "get_config" not in vars(model)


def test_config_without_get_config():
    """Arguments with defaults are in the config, as Keras puts them there without the mixin."""

    class Plain(NeedsUnits):
        def __init__(self, units=3, rate=0.5, **kwargs):
            super().__init__(units, **kwargs)

    class WithMixin(ClassifierMixin, Plain):
        pass

    plain, config = Plain().get_config(), WithMixin(top_k=2).get_config()
    assert plain["units"] == 3
    name, top_k = config.pop("name"), config.pop("top_k")
    assert (name[:10], top_k) == ("with_mixin", 2)
    settings = {"from_logits": False, "class_names": None, "scores": []}
    assert config == {**{key: plain[key] for key in plain if key != "name"}, **settings}


@register
class AsDocumented(keras.Model):
    """A model with `get_config` and `from_config` as Keras's guides have them."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units, activation="softmax")

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@register
class ByName(AsDocumented):
    """A model whose config is no more than its constructor takes."""

    def __init__(self, units):
        super().__init__(units)

    def get_config(self):
        return {"units": self.units}


@register
class Functional(keras.Model):
    """A functional model with a constructor of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(*dense(units), **kwargs)
        self.units = units

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class FunctionalByName(Functional):
    """A functional model whose config is not that of its graph, as those of KerasHub are."""

    def get_config(self):
        return {"name": self.name, "units": self.units}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@register
class DressedAsDocumented(ClassifierMixin, AsDocumented):
    pass


@register
class DressedByName(ClassifierMixin, ByName):
    pass


@register
class DressedFunctional(ClassifierMixin, Functional):
    pass


@register
class DressedFunctionalByName(ClassifierMixin, FunctionalByName):
    pass


@register
class Below(DressedFunctional):
    pass


@register
class NamedUnits(ClassifierMixin, ByName):
    """A class with the mixin whose own constructor takes no settings."""

    def __init__(self, units):
        super().__init__(units)


DRESSED = {
    "from_config(cls, config)": DressedAsDocumented,
    "get_config without the rest": DressedByName,
    "own constructor without settings": NamedUnits,
    "functional": DressedFunctional,
    "functional by name": DressedFunctionalByName,
    "below": Below,
}


@pytest.mark.parametrize(
    ("name", "round_trip"),
    [
        *((name, "keras file") for name in DRESSED),
        # Both go through the config, as a file does.
        *itertools.product(["get_config without the rest", "functional"], ["deepcopy", "pickle"]),
    ],
)
def test_round_trip_of_other_classes(name, rows, tmp_path, round_trip):
    """A class that Keras can save and load can be with the mixin, and keeps its settings."""
    model = DRESSED[name](5)
    model.class_names, model.top_k = list("abcde"), 2
    expected = model.predict(rows, verbose=0)
    again = ROUND_TRIPS[round_trip](model, tmp_path)
    assert type(again) is type(model)
    assert (again.units, again.class_names, again.top_k) == (5, tuple("abcde"), 2)
    keras.tree.map_structure(
        np.testing.assert_array_equal, again.predict(rows, verbose=0), expected
    )


def test_custom_objects_of_a_config():
    """`custom_objects` are handed on if they are given, where the base class takes them."""

    class Layer(layers.Layer):
        def call(self, inputs):
            return inputs

    inputs = keras.Input((3,))
    model = ClassifierModel(inputs, Layer()(inputs))
    again = ClassifierModel.from_config(model.get_config(), custom_objects={"Layer": Layer})
    assert isinstance(again.layers[-1], Layer)
    with pytest.raises(TypeError, match="custom_objects"):
        DressedAsDocumented.from_config({}, custom_objects={})


def test_shown_constructor():
    """`inspect` shows the arguments of the base class and the settings of the mixin."""
    shown = inspect.signature(DressedFunctional)
    assert next(iter(shown.parameters)) == "units"
    assert {"top_k", "class_names", "kwargs"} < set(shown.parameters)
    with pytest.raises(TypeError):
        shown.bind()
    assert "args" in inspect.signature(ClassifierModel).parameters
