import keras
import numpy as np
import pytest

from kerasext.cli.messages import InputError
from kerasext.cli.saved_model import as_structure, image_shape, input_names, load_model
from kerasext.models import ClassifierModel


def model_of(*shapes):
    """A model with an input of each shape."""
    inputs = [keras.Input(shape, name=f"in{n}") for n, shape in enumerate(shapes)]
    joined = [keras.layers.Flatten()(entry) for entry in inputs]
    outputs = joined[0] if len(joined) == 1 else keras.layers.Concatenate()(joined)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)


@keras.saving.register_keras_serializable("tests_of_the_cli")
class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_classes_of_ours(tmp_path):
    """A model that has a mixin already comes back with it."""
    inputs = keras.Input((3,))
    outputs = keras.layers.Softmax()(inputs)
    ClassifierModel(inputs, outputs, class_names=list("abc")).save(tmp_path / "m.keras")
    model = load_model(tmp_path / "m.keras")
    assert isinstance(model, ClassifierModel)
    assert list(model.class_names) == list("abc")


def test_no_model(tmp_path):
    """What is no archive of Keras is refused."""
    (tmp_path / "n.keras").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match=r"n\.keras' can't be loaded"):
        load_model(tmp_path / "n.keras")


def test_inputs():
    """Names in the order of the model, whatever its structure; `None` without a graph."""
    model = model_of((8,), (3,))
    assert input_names(model) == ["in0", "in1"]
    assert as_structure(model, {"in1": 1, "in0": 0}) == [0, 1]
    inputs = {name: keras.Input((8,), name=name) for name in ("left", "right")}
    model = keras.Model(inputs, keras.layers.Concatenate()(list(inputs.values())))
    assert input_names(model) == ["left", "right"]
    assert as_structure(model, {"left": 0, "right": 1}) == {"left": 0, "right": 1}
    assert input_names(Subclassed()) is None
    rows = np.zeros((2, 3))
    assert as_structure(Subclassed(), rows) is rows


def test_inputs_of_a_model_that_is_held():
    """What `from_model` makes of a model without a graph has no names of inputs either."""
    model = Subclassed()
    model.build((None, 3))
    assert input_names(ClassifierModel.from_model(model)) is None


def test_image_shape():
    """The size is the model's, or that which is asked for where it takes any."""
    assert image_shape(model_of((32, 48, 3)), None) == (32, 48, 3)
    assert image_shape(model_of((32, 48, 3)), (32, 48)) == (32, 48, 3)
    pooled = keras.Sequential([keras.Input((None, 48, 1)), keras.layers.GlobalMaxPooling2D()])
    assert image_shape(pooled, (10, 48)) == (10, 48, 1)
    with pytest.raises(InputError, match="--image-size HEIGHTxWIDTH"):
        image_shape(pooled, None)
    with pytest.raises(InputError, match=r"10x48 only\. Received: --image-size 10x20"):
        image_shape(model_of((10, 48, 1)), (10, 20))
    for model in (model_of((8,)), model_of((8, 8, 3), (8, 8, 3)), Subclassed()):
        with pytest.raises(InputError, match="one input of"):
            image_shape(model, None)
