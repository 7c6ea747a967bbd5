import json

import numpy as np
import pytest

from kerasext.calibration import Abstention, fit_calibration, fit_prediction_sets
from kerasext.storage import PredictionFileWriter

RNG = np.random.default_rng(0)
NAMES = ["cat", "dog", "größe"]


def write(path, outputs, **metadata):
    """A complete file of these outputs."""
    described = {"prediction_metadata": json.dumps(metadata)}
    names = NAMES if metadata.get("task") == "classifier" else None
    writer = PredictionFileWriter(path, class_names=names, attributes=described)
    writer.append(outputs)
    writer.finish()
    writer.close()
    return path


def outputs_of(probabilities, truth):
    """What a classifier yields, and what is true."""
    return {
        "probabilities": probabilities.astype("f4"),
        "labels": probabilities.argmax(-1).astype("i4"),
        "confidence": probabilities.max(-1).astype("f4"),
        "targets": truth,
    }


def drawn(rows=200):
    """Probabilities of a classifier, and targets."""
    probabilities = RNG.dirichlet([1, 1, 1], rows).astype("f4")
    return probabilities, (probabilities.cumsum(1) < RNG.random((rows, 1))).sum(1).clip(0, 2)


@pytest.fixture
def calibrated(path):
    """A file of a model with a calibration, sets and abstention."""
    fit, truth = drawn()
    calibration = fit_calibration(fit, truth, task="classifier")
    sets = fit_prediction_sets(calibration.apply(fit), truth, task="classifier")
    probabilities, truth = drawn()
    return write(
        path,
        outputs_of(calibration.apply(probabilities), truth),
        task="classifier",
        calibration=calibration.as_json(),
        prediction_sets=sets.as_json(),
        abstention=Abstention(0.7, 0.1, 0.95, 200, 0.8, 0.4, 0.1).as_json(),
        stale=["abstention"],
    )


def test_figures(kerasext, path):
    """Of a plain file it prints the figures of labels and probabilities, and of each class."""
    probabilities, truth = drawn()
    write(path, outputs_of(probabilities, truth), task="classifier")
    code, out, err = kerasext("evaluate", path)
    assert (code, err) == (0, "")
    accuracy = (probabilities.argmax(1) == truth).mean()
    for text in ("200", f"{accuracy:.4g}", "brier score", "negative log likelihood", *NAMES):
        assert text in out
    for text in ("prediction sets", "abstention", "calibrated", "coverage  "):
        assert text not in out


@pytest.mark.filterwarnings("default:.*must be fitted on the weights")
def test_calibrated(kerasext, calibrated):
    """Figures with and without the calibration stand side by side; what is stale is a warning."""
    code, out, err = kerasext("evaluate", calibrated)
    assert code == 0
    assert "warning: abstention must be fitted on the weights" in err
    for text in ("calibrated", "without", "prediction sets", "mean size", "share kept", "promised"):
        assert text in out


@pytest.mark.filterwarnings("default:.*must be fitted on the weights")
def test_json(kerasext, calibrated):
    """`--json` has every attribute, with lists for arrays and `null` for what is not known."""
    code, out, _ = kerasext("evaluate", calibrated, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["rows"] == 200
    assert len(found["confusion_matrix"]) == 3
    assert found["uncalibrated"]["brier_score"] > 0
    assert len(found["prediction_sets"]["expected_interval"]) == 2
    assert found["abstention"]["by_label"] is None
    assert "NaN" not in out
    assert None in found["calibration_curve"]["accuracy"]


def test_heads_and_thresholds(kerasext, path):
    """One head is chosen, and its labels are those of another threshold."""
    positive = RNG.random((50, 2)).astype("f4")
    outputs = {
        "tags/probabilities": positive,
        "tags/labels": (positive > 0.5).astype("i4"),
        "tags/confidence": np.maximum(positive, 1 - positive),
        "age/prediction": np.arange(50, dtype="f4"),
        "targets/tags": (positive > [0.2, 0.9]).astype("i4"),
        "targets/age": np.arange(50, dtype="f4") + 1,
    }
    write(path, outputs, task={"tags": "multilabel", "age": "regressor"})
    code, out, _ = kerasext("evaluate", path, "--head", "tags", "--threshold", "0.2,0.9", "--json")
    assert (code, json.loads(out)["accuracy"]) == (0, 1)
    code, out, _ = kerasext("evaluate", path, "--head", "age")
    assert code == 0
    assert "root mean squared error" in out
    code, _, err = kerasext("evaluate", path)
    assert code == 2
    assert "pass --head, one of ['age', 'tags']" in err
    code, _, err = kerasext("evaluate", path, "--head", "tags", "--threshold", "2")
    assert code == 2
    assert "--threshold of head 'tags' must be one number in [0, 1]" in err
    assert kerasext("evaluate", path, "--threshold", "x")[0] == 2


def test_no_targets(kerasext, path):
    """A file without targets is an error that says how they are stored."""
    outputs = outputs_of(*drawn())
    del outputs["targets"]
    code, _, err = kerasext("evaluate", write(path, outputs, task="classifier"))
    assert code == 2
    assert "must have the column 'targets'" in err


def test_many_classes(kerasext, path):
    """Of very many classes only the averages are printed."""
    labels = np.arange(40).astype("i4")
    outputs = {"labels": labels, "confidence": np.ones(40, "f4"), "targets": labels}
    code, out, _ = kerasext("evaluate", write(path, outputs))
    assert code == 0
    assert "macro avg" in out
    assert len(out.splitlines()) < 15
