"""A calibration of other weights or settings does not go unnoticed."""

import warnings

import keras
import numpy as np
import pytest

from kerasext import HDF5PredictionWriter, PredictionFile, compile_predict, predict_to_hdf5
from kerasext.models import ClassifierModel, PredictionModel

# What Keras says of torch's tensors, which `pytest.warns` passes on as if it came from here.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STALE = r"fitted on; fit it again with `model.calibrate`.*other ones than calibration"


@pytest.fixture
def targets(rows):
    """Two classes that the rows tell, if not always."""
    return (rows[:, 0] + np.random.default_rng(3).normal(size=len(rows)) > 0).astype("int64")


@pytest.fixture
def model(rows, targets):
    """A calibrated model."""
    inputs = keras.Input((8,))
    model = ClassifierModel(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.layers[-1].set_weights([np.eye(8, 2) * [-6, 0], np.zeros(2)])
    model.calibrate(rows, targets)
    return model


@pytest.mark.parametrize("change", ["fit", "one weight", "dressed again"])
def test_other_weights(model, rows, targets, path, change):
    """Predict, the job, the compiled path and the file say that the calibration is stale."""
    if change == "fit":
        model.fit(rows, targets, verbose=0)
    elif change == "one weight":
        bias = model.weights[-1]
        bias.assign(keras.ops.convert_to_numpy(bias) + np.float32([0, 1e-3]))
    else:
        model = ClassifierModel.from_model(model, from_logits=False)
        model.weights[0].assign(model.weights[0] * 2)
    with pytest.warns(UserWarning, match=STALE):
        model.predict(rows, verbose=0)
    with pytest.warns(UserWarning, match=STALE):
        compile_predict(model)
    with pytest.warns(UserWarning, match=STALE):
        predict_to_hdf5(model, rows, path, verbose=0).close()
    with PredictionFile(path) as predictions:
        assert predictions.prediction_metadata["stale"] == ["calibration"]


def test_same_weights(model, rows, path, tmp_path):
    """Nothing is said of a model as it was fitted, saved and loaded, or dressed again."""
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for other in (model, loaded, PredictionModel.from_model(loaded)):
            other.predict(rows, callbacks=[HDF5PredictionWriter(path, mode="w")], verbose=0)
            with PredictionFile(path) as predictions:
                assert "stale" not in predictions.prediction_metadata


def test_settings_that_change_what_was_fitted(rows, targets):
    """Sets depend on the calibration, abstention also on the threshold; names are nobody's."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(1)(inputs)
    model = PredictionModel(inputs, outputs, tasks="binary", from_logits=True)
    model.layers[-1].set_weights([np.eye(8, 1) * 6, np.zeros(1)])
    model.conformalize(rows, targets, confidence_level=0.8)
    model.abstain(rows, targets, risk=0.5)
    model.class_names = ["no", "yes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.predict(rows, verbose=0)
    model.threshold = 0.4
    with pytest.warns(UserWarning, match="`model.abstain`.*other ones than abstention"):
        model.predict(rows, verbose=0)
    sets, abstention = model.prediction_sets, model.abstention
    with pytest.warns(UserWarning, match="dropped"):
        model.calibrate(rows, targets)
    assert (model.prediction_sets, model.abstention) == (None, None)
    model.prediction_sets, model.abstention = sets, abstention
    with pytest.warns(UserWarning, match="prediction_sets and abstention"):
        model.predict(rows, verbose=0)
