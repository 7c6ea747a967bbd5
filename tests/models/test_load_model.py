"""Loading saved models of kerasext's classes in a process that did not make them."""

import keras
import numpy as np
import pytest

import kerasext
from kerasext.models import ClassifierMixin, ClassifierModel

# Keras seems not to be loaded when kerasext is imported.
KERAS_AFTER_KERASEXT = """
import sys
keras = sys.modules.pop("keras")
import kerasext
sys.modules["keras"] = keras
"""


@pytest.fixture
def saved(tmp_path):
    """A saved classifier of three classes with names."""
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, activation="softmax")(inputs)
    model = ClassifierModel(inputs, outputs, class_names=list("abc"))
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_a_fresh_process_loads_models(saved, keras_server):
    """`load_model` loads a ready-made model whatever was imported first; Keras alone does not."""
    ended = keras_server.run(
        KERAS_AFTER_KERASEXT
        + """
try:
    keras.saving.load_model(sys.argv[1])
except TypeError as error:
    print("Could not locate class" in str(error))
print(*kerasext.load_model(sys.argv[1]).class_names)
""",
        saved,
    )
    assert ended.out == "True\na b c\n", ended.errors


def test_importing_kerasext_after_keras_registers_the_classes(saved, keras_server):
    """If Keras is loaded already, `import kerasext` is enough for Keras's own `load_model`."""
    ended = keras_server.run(
        """
        import sys, keras, kerasext
        print(type(keras.saving.load_model(sys.argv[1])).__name__)
        """,
        saved,
    )
    assert ended.out == "ClassifierModel\n", ended.errors


class Net(ClassifierMixin, keras.Model):
    """A class that is not registered."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.dense(x)


def test_the_arguments_are_those_of_keras(saved, tmp_path):
    """`custom_objects`, `compile` and `safe_mode` do what they do in Keras."""
    assert kerasext.load_model(str(saved)).compiled
    assert not kerasext.load_model(saved, compile=False).compiled
    net, rows = Net(class_names=list("xyz")), np.ones((2, 4), "f4")
    labels = net.predict(rows, verbose=0)["labels"]
    net.save(tmp_path / "net.keras")
    with pytest.raises(TypeError, match="Could not locate class 'Net'"):
        kerasext.load_model(tmp_path / "net.keras")
    found = kerasext.load_model(tmp_path / "net.keras", custom_objects={"Net": Net})
    np.testing.assert_array_equal(found.predict(rows, verbose=0)["labels"], labels)
    inputs = keras.Input((4,))
    unsafe = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    unsafe.save(tmp_path / "unsafe.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        kerasext.load_model(tmp_path / "unsafe.keras")
    assert kerasext.load_model(tmp_path / "unsafe.keras", safe_mode=False) is not None
