import keras
import pytest

from kerasext.keras_internals import private_classes


@pytest.fixture
def run(keras_server):
    """Runs a script in which Keras is changed before kerasext is loaded."""

    def run(script, *args):
        ended = keras_server.run(script, *args, errors=["UserWarning"])
        assert ended.status == 0, ended.errors[-3000:]

    return run


def test_keras_has_them():
    """In the version of Keras that is installed both classes are where they are looked for."""
    assert private_classes.DataAdapter is not None
    assert issubclass(private_classes.Functional, keras.Model)


def test_a_keras_without_data_adapters(run, path):
    """Where Keras must predict arrays, they go through its own pipeline."""
    script = """
        import sys
        import keras, numpy as np
        from keras.src.trainers.data_adapters import data_adapter
        found = data_adapter.DataAdapter
        del data_adapter.DataAdapter
        from kerasext.inference import predict_to_hdf5
        data_adapter.DataAdapter = found

        class Own(keras.Sequential):
            def make_predict_function(self, force=False):
                return super().make_predict_function(force)

        model = Own([keras.Input((2,)), keras.layers.Rescaling(2.0)])
        rows = np.arange(400, dtype="float32").reshape(200, 2)
        with predict_to_hdf5(model, rows, sys.argv[1], verbose=0) as predictions:
            assert predictions.complete
            np.testing.assert_array_equal(predictions["predictions"][:], rows * 2)
    """
    run(script, path)


def test_a_keras_without_functional_models(run):
    """No model is known to have a graph: one that is dressed keeps its class."""
    script = """
        import sys
        import keras, numpy as np
        from keras.src.models import functional
        found = functional.Functional
        del functional.Functional
        from kerasext.models import ClassifierModel
        functional.Functional = found

        inputs = keras.Input((2,))
        model = keras.Model(inputs, keras.layers.Softmax()(inputs))
        dressed = ClassifierModel.from_model(model)
        assert isinstance(dressed, type(model))
        assert dressed.layers == model.layers
        assert dressed.predict(np.eye(2), verbose=0)["labels"].tolist() == [0, 1]
    """
    run(script)


def test_made_by():
    """The operation that makes a symbolic tensor, and which of its results it is."""
    inputs = keras.Input((4,))
    layer = keras.layers.Dense(3)
    assert private_classes.made_by(layer(inputs)) == (layer, 0)


@pytest.mark.parametrize("layers", [[keras.Input((4,))], []])
def test_graph_of(layers):
    """A sequential model has a graph from when it knows its input."""
    model = keras.Sequential([*layers, keras.layers.Dense(3)])
    assert (private_classes.graph_of(model) is not None) is bool(layers)
