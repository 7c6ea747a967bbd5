"""The recipe of docs/export.md: a served model that returns the named outputs."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasext.models import ClassifierMixin, ClassifierModel, PredictionModel

tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.backends("tensorflow", reason="the recipe is for TensorFlow")

WITHOUT_KERASEXT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "kerasext":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())

import numpy as np
import tensorflow as tf

served = tf.saved_model.load("served")  # its variables live as long as it does
outputs = served.serve(np.load("rows.npy"))
np.savez("outputs.npz", **{name: tensor.numpy() for name, tensor in outputs.items()})
"""


@pytest.fixture
def served(tmp_path, rows):
    """Exports an endpoint, and returns what it yields in a process without kerasext."""

    def run(model, serve):
        archive = keras.export.ExportArchive()
        archive.track(model)
        signature = [tf.TensorSpec((None, rows.shape[1]), tf.float32)]
        archive.add_endpoint("serve", serve, input_signature=signature)
        archive.write_out(tmp_path / "served", verbose=False)
        np.save(tmp_path / "rows.npy", rows)
        command = [sys.executable, "-c", WITHOUT_KERASEXT]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        with np.load(tmp_path / "outputs.npz") as outputs:
            return dict(outputs)

    return run


class WithMargin(ClassifierMixin, keras.Model):
    """A subclass with an output of its own."""

    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(3, activation="softmax")

    def call(self, inputs):
        return self.head(inputs)

    def postprocess(self, y_pred):
        outputs = super().postprocess(y_pred)
        ordered = keras.ops.sort(outputs["probabilities"], axis=-1)
        return {**outputs, "runner_up": ordered[:, -2]}


def functional(rows):
    """A classifier that yields logits, with the most probable classes."""
    inputs = keras.Input((rows.shape[1],))
    dropped = keras.layers.Dropout(0.5)(inputs)  # which an endpoint must not apply
    return ClassifierModel(inputs, keras.layers.Dense(4)(dropped), from_logits=True, top_k=2)


@pytest.mark.parametrize("make", [functional, lambda _: WithMargin()], ids=["graph", "subclass"])
def test_named_outputs(served, rows, make):
    """A process that cannot import kerasext gets what `predict` gives."""
    model = make(rows)
    expected = model.predict(rows, verbose=0)
    found = served(model, lambda x: model.postprocess(model(x, training=False)))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_heads(served, rows):
    """The outputs of several heads have flat names."""
    inputs = keras.Input((rows.shape[1],))
    tasks = {"kind": "classifier", "sick": "binary", "signs": "multilabel", "age": "regressor"}
    heads = {
        "kind": keras.layers.Dense(3, activation="softmax")(inputs),
        "sick": keras.layers.Dense(1, activation="sigmoid")(inputs),
        "signs": keras.layers.Dense(3, activation="sigmoid")(inputs),
        "age": keras.layers.Dense(1)(inputs),
    }
    model = PredictionModel(inputs, heads, tasks=tasks)

    def serve(x):
        outputs = model.postprocess(model(x, training=False))
        return {
            f"{head}/{name}": tensor for head in tasks for name, tensor in outputs[head].items()
        }

    found = served(model, serve)
    for head, outputs in model.predict(rows, verbose=0).items():
        for name, values in outputs.items():
            np.testing.assert_allclose(found.pop(f"{head}/{name}"), values, rtol=1e-6)
    assert not found
