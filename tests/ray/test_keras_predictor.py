import json

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from ray.data.block import BlockAccessor

from kerasext.models import ClassifierModel
from kerasext.ray import KerasPredictor
from kerasext.ray.model_column import MODEL, description_of


class Halved(keras.layers.Layer):
    """A layer that Keras can't find by itself when it loads a file."""

    def call(self, x):
        return x / 2


def functional(outputs, shape=(8,)):
    """A factory of models that return what a function makes of their input."""

    def make():
        inputs = keras.Input(shape)
        return keras.Model(inputs, outputs(inputs))

    return make


def columns(table):
    """The columns of a table as Ray gives them to functions."""
    return BlockAccessor.for_block(table.drop_columns([MODEL])).to_numpy()


@pytest.fixture
def batch(rows):
    """A batch of Ray: a column for the model, and two others."""
    return {"x": rows, "id": np.arange(len(rows)), "label": np.array(["a", "b"] * 35)}


def test_the_outputs_are_those_of_predict(model_path, classifier, batch):
    """Kept columns and the outputs of the mixin are columns, with the values of `predict`."""
    predictor = KerasPredictor(model_path, keep_columns=["id", "label"])
    table = predictor(batch)
    found = columns(table)
    expected = classifier.predict(batch["x"], batch_size=70, verbose=0)
    assert found.keys() == {"id", "label", *expected}
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    np.testing.assert_array_equal(found["id"], batch["id"])
    assert list(found["label"]) == list(batch["label"])


def test_batches_of_any_size(model_path, classifier, batch):
    """Batches of 69 rows and of 1 have the rows of one of 70."""
    predictor = KerasPredictor(model_path)
    parts = [{name: a[part] for name, a in batch.items()} for part in (slice(69), slice(69, 70))]
    table = pa.concat_tables([predictor(part) for part in parts])
    expected = classifier.predict(batch["x"], verbose=0)["probabilities"]
    np.testing.assert_allclose(columns(table)["probabilities"], expected, rtol=1e-5)


def test_the_model_is_known_of_each_row(model_path, classifier, batch):
    """A column says by which model a row was predicted, in a byte, and with which class names."""
    table = KerasPredictor(model_path)(batch)
    assert table[MODEL].type == pa.dictionary(pa.int8(), pa.string())
    description = description_of(table[MODEL].slice(20, 1))
    assert tuple(description["class_names"]) == classifier.class_names
    metadata = json.loads(description["attributes"]["prediction_metadata"])
    assert metadata == classifier.prediction_metadata()
    assert description["attributes"]["model_name"] == classifier.name


def test_class_names_of_heads(rows):
    """Names that several heads share are known by head, which the model knows by predicting."""

    def make():
        inputs = keras.Input((8,))
        heads = {name: keras.layers.Dense(2, activation="softmax")(inputs) for name in "ab"}
        return ClassifierModel(inputs, heads, class_names=["no", "yes"])

    table = KerasPredictor(make, keep_columns=())({"x": rows})
    assert description_of(table[MODEL])["class_names"] == {"a": ["no", "yes"], "b": ["no", "yes"]}
    assert {"a/labels", "b/probabilities"} < set(table.column_names)


def test_nested_and_single_outputs(rows):
    """Nested outputs are columns named by their path, and a single tensor is `predictions`."""
    nested = functional(lambda x: {"head": {"low": x + 0, "high": [x + 1, x + 2]}})
    table = KerasPredictor(nested, keep_columns=())({"x": rows})
    assert set(table.column_names) == {"head/low", "head/high/0", "head/high/1", MODEL}
    np.testing.assert_array_equal(columns(table)["head/high/1"], rows + 2)
    table = KerasPredictor(functional(lambda x: x + 0), keep_columns=())({"x": rows})
    assert table.column_names == ["predictions", MODEL]


def test_outputs_are_chosen(model_path, batch):
    """`outputs` names those that become columns."""
    predictor = KerasPredictor(model_path, keep_columns=(), outputs=["labels"])
    assert predictor(batch).column_names == ["labels", MODEL]
    with pytest.raises(ValueError, match=r"outputs.*label"):
        KerasPredictor(model_path, outputs=["label"])(batch)


@pytest.mark.parametrize("x", [["one", "two"], {"a": "one", "b": "two"}], ids=["list", "dict"])
def test_several_inputs(x, rows):
    """Models of several inputs take columns by position or by name."""

    def make():
        a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
        return keras.Model({"a": a, "b": b} if isinstance(x, dict) else [a, b], a - 2 * b)

    predictor = KerasPredictor(make, x=x, keep_columns=())
    found = columns(predictor({"one": rows, "two": rows[::-1]}))["predictions"]
    np.testing.assert_allclose(found, rows - 2 * rows[::-1], rtol=1e-6)


@pytest.mark.backends("tensorflow", reason="the others have no strings")
def test_models_of_text(rows):
    """Columns of strings go into models, and strings come out of them."""

    class Upper(keras.layers.Layer):
        def call(self, x):
            return tf.strings.upper(x)

    def make():
        inputs = keras.Input((), dtype="string")
        return keras.Model(inputs, Upper()(inputs))

    words = np.array(["cat", "ëel", "dog"], dtype=object)
    table = KerasPredictor(make, keep_columns=())({"x": words})
    assert [w.decode() for w in table["predictions"].to_pylist()] == ["CAT", "ëEL", "DOG"]


def test_bfloat16_becomes_float32(rows):
    """What Arrow has no type for and float32 holds is float32, as in the file."""
    make = functional(lambda x: keras.ops.cast(x, "bfloat16"))
    found = columns(KerasPredictor(make, keep_columns=())({"x": rows}))["predictions"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rows, rtol=2**-7)


@pytest.mark.backends("tensorflow", reason="the others' models return no complex or ragged tensors")
@pytest.mark.parametrize(("of", "error"), [("complex", "complex"), ("ragged", "ragged")])
def test_outputs_without_a_type(of, error, rows):
    """Complex and ragged outputs are refused by name, before Ray makes pickled objects of them."""

    class Odd(keras.Model):
        def call(self, x):
            return x

        def predict_step(self, data):
            if of == "complex":
                return {"odd": tf.cast(data, tf.complex64)}
            return {"odd": tf.RaggedTensor.from_tensor(data)}

    with pytest.raises(TypeError, match=f"'odd'.*{error}|{error}.*'odd'"):
        KerasPredictor(Odd, keep_columns=())({"x": rows})


class Returns(keras.Model):
    """A model whose step returns what it is told to."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def call(self, x):
        return x

    def predict_on_batch(self, x):
        return self.value


def test_outputs_that_ray_would_pickle(rows):
    """Strings with two axes are lists, and numbers of the other byte order are their values."""
    text = np.array([["a", "é"], ["c\0", ""]], dtype=object)
    table = KerasPredictor(lambda: Returns(text), keep_columns=())({"x": rows[:2]})
    assert table["predictions"].type == pa.list_(pa.string())
    assert table["predictions"].to_pylist() == [["a", "é"], ["c\0", ""]]
    numbers = np.ones((2, 3), ">f4")
    table = KerasPredictor(lambda: Returns(numbers), keep_columns=())({"x": rows[:2]})
    np.testing.assert_array_equal(columns(table)["predictions"], np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"no type for output 'predictions'.*float128"):
        KerasPredictor(lambda: Returns(numbers.astype("g")), keep_columns=())({"x": rows[:2]})


@pytest.mark.backends("torch", reason="only its models have two modes")
def test_dropout_of_torch(rows):
    """A model in training mode predicts as `predict` does."""
    torch = pytest.importorskip("torch")

    class Drops(keras.Model):
        def call(self, x):
            return torch.nn.functional.dropout(x, 0.5, training=self.training)

    table = KerasPredictor(Drops, keep_columns=())({"x": rows})
    np.testing.assert_array_equal(columns(table)["predictions"], rows)


def test_a_dataset_that_was_predicted(model_path, batch):
    """The column of another predictor can't be kept beside our own."""
    batch[MODEL] = np.array(["{}"] * 70)
    with pytest.raises(ValueError, match=r"stays.*_kerasext"):
        KerasPredictor(model_path, keep_columns=[MODEL])(batch)


def test_outputs_without_rows(rows):
    """An output without a row for each row of the batch is refused by name."""

    class Summed(keras.Model):
        def call(self, x):
            return {"sum": keras.ops.sum(x, axis=0)}

    with pytest.raises(ValueError, match="'sum' must have one row"):
        KerasPredictor(Summed, keep_columns=())({"x": rows})


def test_logits_are_refused(rows):
    """A mixin whose probabilities are none ends the job at its first batch."""

    def make():
        return ClassifierModel.from_model(functional(lambda x: x * 9)())

    with pytest.raises(ValueError, match="from_logits=True"):
        KerasPredictor(make, keep_columns=())({"x": rows})


def test_columns_that_are_not_there(model_path, batch):
    """Names that the dataset does not have are refused, with those that it has."""
    del batch["id"]
    with pytest.raises(ValueError, match=r"`keep_columns`.*'id'.*\['label', 'x'\]"):
        KerasPredictor(model_path)(batch)
    with pytest.raises(ValueError, match=r"`x`.*'image'"):
        KerasPredictor(model_path, x="image", keep_columns=())(batch)


def test_a_kept_column_named_as_an_output(model_path, batch):
    """Two columns can't have one name: it is named."""
    batch["labels"] = batch["label"]
    with pytest.raises(ValueError, match=r"stays.*\['labels'\]"):
        KerasPredictor(model_path, keep_columns=["id", "labels"])(batch)


def test_names_that_are_a_string(model_path):
    """One name where a list belongs is refused, for it is a list of letters."""
    with pytest.raises(TypeError, match="keep_columns='id'"):
        KerasPredictor(model_path, keep_columns="id")


def test_custom_classes(tmp_path, rows):
    """A file with classes of the user's needs them, and the error says what to do."""
    path = tmp_path / "model.keras"
    functional(Halved())().save(path)
    with pytest.raises(ValueError, match=r"custom_objects.*model\.keras"):
        KerasPredictor(path)
    predictor = KerasPredictor(path, keep_columns=(), custom_objects={"Halved": Halved})
    np.testing.assert_array_equal(columns(predictor({"x": rows}))["predictions"], rows / 2)


@pytest.mark.parametrize("make", [lambda: None, dict, keras.Sequential])
def test_what_is_no_model(make, rows):
    """A model itself, a callable that makes none, and no path are refused by type."""
    if make is keras.Sequential:
        with pytest.raises(TypeError, match=r"model\.save.*Sequential"):
            KerasPredictor(make())
    else:
        with pytest.raises(TypeError, match="a callable that returns"):
            KerasPredictor(make)
    with pytest.raises(TypeError, match="int"):
        KerasPredictor(3)


def test_a_file_that_is_not_there(tmp_path):
    """A missing file is named."""
    with pytest.raises(ValueError, match=r"none\.keras"):
        KerasPredictor(tmp_path / "none.keras")


class Prepared(keras.Model):
    """A model that prepares its data in `predict_on_batch`, as those of KerasHub do."""

    def predict_on_batch(self, x):
        return super().predict_on_batch(x / 255)


class PreparedInPredict(keras.Model):
    """A model that prepares its data in `predict` only."""

    def predict(self, x, **kwargs):
        return super().predict(x / 255, **kwargs)


def of(model_class):
    """A factory of functional models of a class."""

    def make():
        inputs = keras.Input((8,))
        return model_class(inputs, keras.layers.Dense(4, activation="softmax")(inputs))

    return make


def test_own_predict_on_batch(batch):
    """The model's own `predict_on_batch` is called."""
    model = of(Prepared)()
    table = KerasPredictor(lambda: model)(batch)
    expected = model.predict_on_batch(batch["x"])
    np.testing.assert_array_equal(columns(table)["predictions"], expected)
    assert np.abs(expected - keras.Model.predict_on_batch(model, batch["x"])).max() > 0.1


@pytest.mark.parametrize("bases", [(PreparedInPredict,), (PreparedInPredict, Prepared)])
def test_own_predict(batch, bases):
    """The model's own `predict` is called, also if it has a `predict_on_batch` beside it."""
    model = of(type("Own", bases, {}))()
    expected = model.predict(batch["x"], verbose=0)
    table = KerasPredictor(lambda: model)(batch)
    np.testing.assert_array_equal(columns(table)["predictions"], expected)
    assert np.abs(expected - keras.Model.predict(model, batch["x"], verbose=0)).max() > 0.1


def test_text_for_an_own_predict():
    """Strings, of which Ray makes objects, reach the model's own `predict`."""

    class OfText(keras.Model):
        def predict(self, x, **kwargs):
            return super().predict(np.array([[len(text)] * 8 for text in x], "float32"), **kwargs)

    model, texts = of(OfText)(), np.array(["a", "bc", "def"], dtype=object)
    table = KerasPredictor(lambda: model, keep_columns=())({"x": texts})
    expected = model.predict(texts, verbose=0)
    np.testing.assert_array_equal(columns(table)["predictions"], expected)
