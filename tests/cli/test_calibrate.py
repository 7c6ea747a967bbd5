import keras
import numpy as np
import pytest

from kerasext import PredictionFile, load_model
from kerasext.evaluation import evaluate
from kerasext.models import ClassifierModel, PredictionMixin


@pytest.fixture
def files(tmp_path, kerasext):
    """A saved model that is too sure of itself, and a file of 400 rows with targets."""
    random = np.random.default_rng(5)
    x = random.normal(size=(400, 8)).astype("float32")
    weights = random.normal(size=(8, 4))
    y = (x @ weights + random.gumbel(scale=1.5, size=(400, 4))).argmax(axis=-1)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="softmax")])
    model.layers[0].set_weights([2 * weights, np.zeros(4)])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    predict(kerasext, tmp_path, "model.keras", "val.h5")
    return tmp_path


def predict(kerasext, folder, model, out):
    """Predicts the rows with a model into a file."""
    arguments = ["predict", folder / model, folder / "x.npy", "-o", folder / out]
    code, _, err = kerasext(*arguments, "--targets", folder / "y.npy", "--class-names", "a,b,c,d")
    assert code == 0, err


def calibrate(kerasext, folder, *options, file="val.h5"):
    """Calibrates the model with a file."""
    out = folder / "calibrated.keras"
    return kerasext("calibrate", folder / "model.keras", folder / file, "-o", out, *options)


def test_calibrate(kerasext, files):
    """A plain model is saved with a temperature, and what it predicts is calibrated."""
    code, out, err = calibrate(kerasext, files)
    assert code == 0, err
    assert "temperature" in out
    assert "400 rows" in out
    model = load_model(files / "calibrated.keras")
    assert isinstance(model, ClassifierModel)
    assert model.calibration.temperature > 1.1
    predict(kerasext, files, "calibrated.keras", "after.h5")
    before, after = evaluate(files / "val.h5"), evaluate(files / "after.h5")
    assert after.expected_calibration_error < before.expected_calibration_error / 2
    code, out, err = kerasext("evaluate", files / "after.h5")
    assert code == 0, err
    assert f"{after.expected_calibration_error:.4g}" in out
    assert f"{before.expected_calibration_error:.4g}" in out


def test_sets_and_abstention(kerasext, files):
    """The rows are split by a seed: one part fits the calibration, the other one the rest."""
    options = ["--prediction-sets", "lac", "--confidence-level", 0.8, "--abstain-risk", 0.3]
    found = []
    for seed in (0, 0, 1):
        split = ["--split", 0.25, "--seed", seed, "--overwrite"]
        code, out, err = calibrate(kerasext, files, *options, *split)
        assert code == 0, err
        found.append(out)
        model = load_model(files / "calibrated.keras")
        fitted = model.calibration, model.prediction_sets, model.abstention
        assert [result.rows for result in fitted] == [100, 300, 300]
    assert found[0] == found[1] != found[2]
    predict(kerasext, files, "calibrated.keras", "after.h5")
    with PredictionFile(files / "after.h5") as predictions:
        assert predictions["prediction_set"].shape == (400, 4)
        assert {"set_size", "abstained"} <= {*predictions}


def test_again(kerasext, files):
    """A model that has a mixin keeps its class; sets alone keep the calibration that it has."""
    assert calibrate(kerasext, files, "--method", "vector")[0] == 0
    (files / "calibrated.keras").replace(files / "model.keras")
    predict(kerasext, files, "model.keras", "second.h5")
    options = ["--method", "none", "--prediction-sets", "lac", "--class-conditional"]
    code, _, err = calibrate(kerasext, files, *options, file="second.h5")
    assert code == 2
    assert "other rows than vector scaling" in err
    assert calibrate(kerasext, files, file="second.h5")[0] == 0
    (files / "calibrated.keras").replace(files / "model.keras")
    predict(kerasext, files, "model.keras", "third.h5")
    code, _, err = calibrate(kerasext, files, *options, file="third.h5")
    assert code == 0, err
    model = load_model(files / "calibrated.keras")
    assert isinstance(model, PredictionMixin)
    assert model.calibration.method == "temperature"
    assert len(model.prediction_sets.threshold) == 4


WRONG = [
    (["--confidence-level", 0.9], "--confidence-level is for --prediction-sets"),
    (["--class-conditional"], "--class-conditional is for --prediction-sets"),
    (["--method", "none"], "fits nothing alone"),
    (["--abstain-risk", 1.5], "must be a number between 0 and 1"),
    (["--split", 0], "must be a number between 0 and 1"),
    (["--method", "platt"], "platt"),
    (["--prediction-sets", "lac", "--confidence-level", 0.999], "999 rows"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options(kerasext, files, options, message):
    """What can't be fitted is said, and no file is written."""
    code, _, err = calibrate(kerasext, files, *options)
    assert code == 2
    assert message in err
    assert not (files / "calibrated.keras").exists()


def test_wrong_files(kerasext, files, tmp_path):
    """A file of another model is refused, and so is one that was stored plain."""
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="softmax")])
    other.save(tmp_path / "model.keras")
    code, _, err = calibrate(kerasext, files)
    assert code == 2
    assert "of this model and these weights; predict again" in err
    arguments = [tmp_path / "model.keras", tmp_path / "x.npy", "-o", tmp_path / "plain.h5"]
    assert kerasext("predict", *arguments, "--as", "plain")[0] == 0
    code, _, err = calibrate(kerasext, files, file="plain.h5")
    assert code == 2
    assert "stored plain" in err
    (tmp_path / "calibrated.keras").write_text("mine")
    code, _, err = calibrate(kerasext, files)
    assert code == 2
    assert "exists; --overwrite replaces it" in err
