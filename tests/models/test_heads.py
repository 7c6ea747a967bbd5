"""Models whose heads have different tasks, however the model was made."""

import json
import logging

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasext
from kerasext import predict_to_hdf5
from kerasext.models import (
    BinaryClassifierModel,
    ClassifierMixin,
    ClassifierModel,
    MultiLabelClassifierModel,
    PredictionMixin,
    PredictionModel,
    RegressorModel,
    suggest_tasks,
)

TASKS = {
    "kind": "classifier",
    "sick": "binary",
    "signs": "multilabel",
    "age": "regressor",
    "embedding": None,
}
SETTINGS = {
    "class_names": {"kind": ("cat", "dog", "horse"), "signs": ("a", "b", "c")},
    "threshold": {"sick": 0.25, "signs": (0.2, 0.5, 0.75)},
    "scores": {"kind": ("margin",)},
    "top_k": {"kind": 2},
    "scale": {"age": "log_std"},
}


def head_layers():
    """The layers of the five heads."""
    return {
        "kind": layers.Dense(3, activation="softmax", name="kind"),
        "sick": layers.Dense(1, activation="sigmoid", name="sick"),
        "signs": layers.Dense(3, activation="sigmoid", name="signs"),
        "age": layers.Dense(2, name="age"),
        "embedding": layers.Dense(4, name="embedding"),
    }


@keras.saving.register_keras_serializable(package="test_heads")
class Plain(keras.Model):
    """A subclass with five heads."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head_layers = head_layers()

    def call(self, inputs):
        return {name: layer(inputs) for name, layer in self.head_layers.items()}


@keras.saving.register_keras_serializable(package="test_heads")
class Net(PredictionMixin, Plain):
    """The same with the mixin, its settings in the class."""

    tasks = TASKS
    class_names = SETTINGS["class_names"]
    threshold = SETTINGS["threshold"]
    scores = SETTINGS["scores"]
    top_k = SETTINGS["top_k"]
    scale = SETTINGS["scale"]


def functional(model_class=keras.Model, as_list=False, **settings):
    """A functional model with five heads, in a dict or a list."""
    inputs = keras.Input((8,))
    heads = {name: layer(inputs) for name, layer in head_layers().items()}
    return model_class(inputs, list(heads.values()) if as_list else heads, **settings)


def built(model):
    """The model, with weights."""
    model(np.zeros((1, 8), "float32"))
    return model


ALL = {"tasks": TASKS, **SETTINGS}
MODELS = {
    "subclass": Net,
    "functional dict": lambda: functional(PredictionModel, **ALL),
    "functional list": lambda: functional(PredictionModel, as_list=True, **ALL),
    "from_model of a dict": lambda: PredictionModel.from_model(functional(), **ALL),
    "from_model of a list": lambda: PredictionModel.from_model(functional(as_list=True), **ALL),
    "from_model without a graph": lambda: PredictionModel.from_model(Plain(), **ALL),
    "another mixin": lambda: functional(
        ClassifierModel,
        tasks={name: task for name, task in TASKS.items() if name != "kind"},
        **{name: SETTINGS[name] for name in ("scores", "top_k")},
    ),
}


@pytest.fixture(params=MODELS)
def model(request):
    """A model with a softmax, a sigmoid, a three-label, a regression head and an embedding."""
    return built(MODELS[request.param]())


def plain_outputs(model, x):
    """What the heads yield, by name."""
    outputs = model(x)
    named = outputs if isinstance(outputs, dict) else dict(zip(TASKS, outputs, strict=True))
    return {name: ops.convert_to_numpy(tensor) for name, tensor in named.items()}


def alone(task, tensor, **settings):
    """What a model of one task says of the same values."""
    made = {
        "classifier": ClassifierModel,
        "binary": BinaryClassifierModel,
        "multilabel": MultiLabelClassifierModel,
        "regressor": RegressorModel,
    }
    inputs = keras.Input(tensor.shape[1:])
    return made[task](inputs, layers.Identity()(inputs), **settings).predict(tensor, verbose=0)


def settings_of(model, head):
    """The settings of one head of a model, by the names that the model has."""
    known = {name: getattr(model, name, {}) for name in SETTINGS}
    return {
        name: value[head]
        for name, value in known.items()
        if hasattr(value, "items") and head in value
    }


def test_predict(model, rows):
    """Each head says what a model of that task alone says, and a head without one is as it is."""
    outputs = model.predict(rows, batch_size=23, verbose=0)
    assert set(outputs) == set(TASKS)
    expected = plain_outputs(model, rows)
    np.testing.assert_allclose(outputs["embedding"], expected.pop("embedding"), rtol=1e-5)
    for head, tensor in expected.items():
        of_head = alone(TASKS[head], tensor, **settings_of(model, head))
        assert outputs[head].keys() == of_head.keys()
        for name, array in of_head.items():
            np.testing.assert_allclose(outputs[head][name], array, rtol=1e-4, atol=1e-6)


def test_metadata(model, rows):
    """The task is told by head, as JSON, before and after a predict."""
    before = model.prediction_metadata()
    model.predict(rows, verbose=0)
    metadata = model.prediction_metadata()
    assert json.loads(json.dumps(metadata)) == metadata
    assert metadata["task"] == TASKS
    assert set(before["task"].items()) <= set(TASKS.items())
    assert "tasks" not in metadata


def test_file(model, rows, path):
    """A file has a group for each head, and what is resumed is what one run writes."""
    expected = model.predict(rows, batch_size=23, verbose=0)
    with predict_to_hdf5(model, rows, path, batch_size=23, verbose=0) as predictions:
        assert predictions.prediction_metadata["task"] == TASKS
        for head in TASKS:
            named = {"": expected[head]} if head == "embedding" else expected[head]
            for name, array in named.items():
                found = predictions[f"{head}/{name}".rstrip("/")][:]
                np.testing.assert_allclose(found, array, rtol=1e-5, atol=1e-6)
    predict_to_hdf5(model, rows, path, batch_size=23, mode="resume", verbose=0).close()


def test_round_trip(model, rows, tmp_path):
    """A model is saved and loaded with its tasks and settings."""
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    assert again.get_config()["tasks"] == model.get_config()["tasks"]
    expected, outputs = (m.predict(rows, verbose=0) for m in (model, again))
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)
    assert set(json.loads(json.dumps(model.get_config()))["tasks"].items()) <= set(TASKS.items())


def test_a_fresh_process(rows, tmp_path, keras_server):
    """`load_model` loads a model with tasks in a process that knows no class of it."""
    functional(PredictionModel, **ALL).save(tmp_path / "model.keras")
    ended = keras_server.run(
        """
        import sys, kerasext
        model = kerasext.load_model(sys.argv[1])
        print(type(model).__name__, *model.tasks)
        """,
        tmp_path / "model.keras",
    )
    assert ended.out == f"PredictionModel {' '.join(TASKS)}\n", ended.errors


NAMES = {
    "unique": (["colour", "shape"], ["colour", "shape"]),
    "automatic": ([None, None], ["0", "1"]),
    "one automatic": (["colour", None], ["colour", "1"]),
    "like an automatic one": (["dense_7", "dense"], ["0", "1"]),
    "numbers": (["1", "0"], ["0", "1"]),
}


@pytest.mark.parametrize(("given", "names"), NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("nested", [False, True])
def test_names_of_a_list(rows, given, names, nested):
    """A head of a list has the name of its layer if the user gave it one, else its position."""
    inputs = keras.Input((8,))
    heads = [layers.Dense(3, activation="softmax", name=name)(inputs) for name in given]
    model = ClassifierModel(inputs, {"x": heads} if nested else heads)
    outputs = model.predict(rows, verbose=0)
    assert set(outputs["x"] if nested else outputs) == set(names)
    settings = {f"x/{name}" if nested else name: 2 for name in names}
    again = ClassifierModel.from_model(model, top_k=settings)
    outputs = again.predict(rows, verbose=0)
    assert "top_k_labels" in (outputs["x"] if nested else outputs)[names[1]]


def test_names_of_a_shared_layer(rows):
    """Heads of one layer have their positions, and so have those of a model without a graph."""
    inputs = keras.Input((8,))
    layer = layers.Dense(3, activation="softmax", name="shared")
    model = ClassifierModel(inputs, [layer(inputs), layer(2 * inputs)])
    assert set(model.predict(rows, verbose=0)) == {"0", "1"}
    plain = keras.Model(inputs, [layer(inputs), layers.Dense(2, name="other")(inputs)])
    outputs = plain.predict(rows, verbose=0)
    assert isinstance(outputs, list)


def test_names_of_a_nested_model(rows):
    """A model that is the last layer gives its name, however its own layers are called."""
    inputs = keras.Input((8,))
    part = keras.Sequential([layers.Dense(3, activation="softmax", name="inner")], name="colour")
    heads = [part(inputs), layers.Dense(3, activation="softmax", name="shape")(inputs)]
    assert set(ClassifierModel(inputs, heads).predict(rows, verbose=0)) == {"colour", "shape"}


def test_same_task_for_all(rows):
    """One task for all heads is a string in the metadata, however it was given."""
    inputs = keras.Input((8,))
    heads = {name: layers.Dense(3, activation="softmax")(inputs) for name in "ab"}
    for tasks in ("classifier", {"a": "classifier", "b": "classifier"}):
        model = PredictionModel(inputs, heads, tasks=tasks, class_names=["x", "y", "z"])
        model.predict(rows, verbose=0)
        metadata = model.prediction_metadata()
        assert metadata["task"] == "classifier"
        assert metadata["class_names"] == {"a": ["x", "y", "z"], "b": ["x", "y", "z"]}


def test_one_value_for_heads_of_different_tasks(rows):
    """A setting that is no dict is for the heads whose task has it."""
    heads = {"kind": "classifier", "age": "regressor"}
    model = functional(PredictionModel, tasks=heads, class_names=list("xyz"), threshold=1.0)
    model.predict(rows, verbose=0)
    assert model.prediction_metadata()["class_names"] == {"kind": ["x", "y", "z"]}
    model = functional(PredictionModel, tasks={**heads, "sick": "binary"}, threshold=1.0)
    assert not model.predict(rows, verbose=0)["sick"]["labels"].any()


def test_without_tasks(rows):
    """`PredictionModel` without tasks returns what the model does."""
    inputs = keras.Input((8,))
    output = layers.Dense(3)(inputs)
    model, plain = PredictionModel(inputs, output), keras.Model(inputs, output)
    np.testing.assert_array_equal(*(m.predict(rows, verbose=0) for m in (model, plain)))
    assert model.prediction_metadata()["task"] is None


WRONG = [
    ({"tasks": {"knd": "classifier"}}, r"`tasks` .* by head.*nearest is 'kind'.*for \['knd'\]"),
    ({"threshold": {"sck": 0.2}}, r"`threshold` .* by head.*nearest is 'sick'.*for \['sck'\]"),
    ({"tasks": {"kind": "binary"}}, r"head 'kind' .*`tasks=\{'kind': 'classifier'\}`"),
    ({"tasks": {"sick": "classifier"}}, r"head 'sick' .*`tasks=\{'sick': 'binary'\}`"),
    ({"tasks": {"sick": "regressor"}, "scale": "std"}, "even number of units of head 'sick'"),
    (
        {"tasks": {"kind": "classifier"}, "threshold": {"kind": 0.2}},
        r"`threshold` is a setting of .*\['binary', 'multilabel'\].*task is 'classifier'",
    ),
    ({"scale": {"age": "std"}}, r"`scale` is a setting of .*\['regressor'\].*task is None"),
    ({"tasks": {"kind": "classifier"}, "from_logits": True}, "head 'kind' applies softmax"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_wrong_settings(settings, message, rows):
    """What does not fit a head is refused: at once where there is a graph, else in a predict."""
    with pytest.raises(ValueError, match=message):
        functional(PredictionModel, **settings)
    with pytest.raises(ValueError, match=message):
        functional(PredictionModel, as_list=True, **settings)
    if "from_logits" in settings:
        return  # no graph, no last layer
    model = PredictionModel.from_model(Plain(), **settings)
    with pytest.raises(ValueError, match=message):
        model.predict(rows, verbose=0)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("clasifier", "nearest is 'classifier'"),
        ({"kind": "regresor"}, "nearest is 'regressor'"),
        ({"kind": 3}, "tasks=3"),
        ("auto", "`from_model`"),
    ],
)
def test_unknown_task(value, remedy):
    """A task that does not exist is refused, with the nearest that does."""
    with pytest.raises(ValueError, match=rf"`tasks` must be out of .*{remedy}"):
        Net(tasks=value)
    with pytest.raises(ValueError, match=r"`scale` must be 'std', 'log_std'"):
        Net(scale="variance")


def test_settings_of_another_mixin():
    """A mixin says which one has the settings of all tasks."""
    with pytest.raises(TypeError, match=r"settings of ClassifierModel.*`PredictionModel` have"):
        functional(ClassifierModel, threshold=0.5)


@pytest.mark.parametrize("appears", [True, False])
def test_other_heads_in_another_call(rows, appears):
    """Heads that appear or vanish between calls are refused."""

    class Moody(ClassifierMixin, keras.Model):
        is_long = not appears

        def call(self, inputs):
            heads = {"a": inputs, "b": inputs} if self.is_long else {"a": inputs}
            return keras.tree.map_structure(ops.softmax, heads)

    model = Moody()
    model.compile(run_eagerly=True)
    model.predict(rows, verbose=0)
    model.is_long = appears
    both = r"the heads \['a', 'b'\]"
    first, second = (both, r"the heads \['a'\]") if appears else (r"the heads \['a'\]", both)
    message = f"same heads in every call.*Received: {first} after {second}"
    with pytest.raises(ValueError, match=message):
        model.predict(rows, verbose=0)


def test_heads_of_a_mixin(rows, path):
    """What the errors of a mixin with a task say to write is written, and works."""
    with pytest.raises(ValueError, match=r"'sick' must.*`tasks=\{'sick': 'binary'\}`"):
        functional(ClassifierModel)
    model = functional(ClassifierModel, tasks={"sick": "binary", "signs": "multilabel"})
    message = r"pass `tasks=\{'age': None\}`, or override `postprocess`"
    with (
        pytest.warns(UserWarning, match="if it is no classifier"),
        pytest.raises(ValueError, match=message),
    ):
        predict_to_hdf5(model, rows, path, outputs=["age"], verbose=0)
    model.tasks = {"sick": "binary", "age": None, "embedding": None}
    assert model.predict(rows, verbose=0)["age"].shape == (70, 2)


def test_suggest_tasks():
    """The last layers suggest tasks by head; a linear one only if it yields logits."""
    suggested = {**TASKS, "age": None}
    assert suggest_tasks(functional()) == suggest_tasks(functional(as_list=True)) == suggested
    of_logits = suggest_tasks(functional(), from_logits={"age": True})
    assert of_logits == {**suggested, "age": "classifier"}
    assert suggest_tasks(Plain()) is None
    inputs = keras.Input((8,))
    assert suggest_tasks(keras.Model(inputs, layers.Dense(1, "sigmoid")(inputs))) == "binary"
    assert suggest_tasks(keras.Model(inputs, layers.Dense(1)(inputs))) is None
    assert suggest_tasks(keras.Model(inputs, layers.Dense(1)(inputs)), from_logits=True) == "binary"


def test_from_model_suggests(rows, caplog):
    """`tasks="auto"` takes what is suggested, and says so."""
    with caplog.at_level(logging.INFO, logger="kerasext"):
        model = PredictionModel.from_model(functional(), tasks="auto")
    (record,) = caplog.records
    assert record.name == "kerasext"
    assert "'kind' softmax over 3 units" in record.message
    assert "'sick': 'binary'" in record.message
    assert dict(model.tasks) == suggest_tasks(functional())
    assert model.predict(rows, verbose=0)["signs"]["labels"].shape == (70, 3)
    with pytest.raises(ValueError, match="'auto'` needs a model with a graph"):
        PredictionModel.from_model(Plain(), tasks="auto")


def test_from_model_again(model, rows):
    """A model with tasks gives them to the next one, with its settings."""
    again = PredictionModel.from_model(PredictionModel.from_model(model))
    expected, outputs = (m.predict(rows, verbose=0) for m in (model, again))
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)
    assert isinstance(again, PredictionModel)
    other = PredictionModel.from_model(model, tasks={"kind": "classifier"})
    assert other.predict(rows, verbose=0)["sick"].shape == (70, 1)


def test_from_model_between_tasks():
    """Names of classes stay with heads that are binary in both models or in none."""
    model = functional(PredictionModel, **ALL)
    again = ClassifierModel.from_model(model)
    assert dict(again.class_names) == SETTINGS["class_names"]
    assert dict(again.tasks) == TASKS
    single = BinaryClassifierModel.from_model(
        keras.Sequential([keras.Input((8,)), layers.Dense(1, activation="sigmoid")]),
        class_names=["no", "yes"],
        threshold=0.25,
    )
    binary = PredictionModel.from_model(single)
    assert (binary.tasks, binary.class_names, binary.threshold) == ("binary", ("no", "yes"), 0.25)
    label = PredictionModel.from_model(single, tasks="multilabel")
    assert (label.class_names, label.threshold) == (None, 0.25)


@pytest.mark.parametrize("made", [PredictionModel, ClassifierModel, RegressorModel])
def test_instance_of_the_ready_made_class(made, rows):
    """What `from_model` returns is an instance of its class, with a graph and without."""
    inputs = keras.Input((8,))
    graph = keras.Model(inputs, layers.Dense(3, activation="softmax")(inputs))

    class WithoutGraph(keras.Model):
        def call(self, inputs):
            return graph(inputs)

    for model in (graph, WithoutGraph()):
        dressed = made.from_model(model)
        assert isinstance(dressed, made)
        assert isinstance(made.from_model(dressed), made)
        assert kerasext.compile_predict(dressed)(rows[:2]) is not None
    assert isinstance(made(inputs, graph(inputs)), made)
    assert type(made(inputs, graph(inputs))).__name__ == made.__name__
