import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from kerasext.evaluation import RegressionEvaluation, evaluate
from kerasext.storage import RaggedRows

ROWS = 70
RNG = np.random.default_rng(0)
FIGURES = {
    "mean_absolute_error": mean_absolute_error,
    "root_mean_squared_error": root_mean_squared_error,
    "r2": r2_score,
}


def predicted(shape=(ROWS,), *, mean=0.0):
    """What a regressor says, and what is true."""
    targets = RNG.normal(mean, 2, shape)
    return {"prediction": (targets + RNG.normal(0, 1, shape)).astype("f4"), "targets": targets}


def assert_equals_scikit_learn(result, targets, prediction):
    """All figures are scikit-learn's on the same arrays, also by unit."""
    units = prediction.shape[-1] if prediction.ndim > 1 else 1
    arrays = [values.astype("f8").reshape(-1, units) for values in (targets, prediction)]
    for name, function in FIGURES.items():
        assert getattr(result, name) == pytest.approx(function(*arrays), rel=1e-9, abs=1e-12)
        by_unit = function(*arrays, multioutput="raw_values")
        np.testing.assert_allclose(result.by_unit[name], by_unit, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1), (ROWS, 3), (ROWS, 4, 2)])
@pytest.mark.parametrize("batch_rows", [1, 7, 65536])
def test_as_in_scikit_learn(store, shape, batch_rows):
    """Errors and R2 of one unit or several are scikit-learn's, in whatever batches."""
    columns = predicted(shape)
    result = evaluate(store(columns, task="regressor"), batch_rows=batch_rows)
    assert isinstance(result, RegressionEvaluation)
    assert (result.rows, result.count, result.missing) == (ROWS, columns["targets"].size, 0)
    assert_equals_scikit_learn(result, columns["targets"], columns["prediction"])


@pytest.mark.parametrize("batch_rows", [7, 65536])
def test_targets_far_from_zero(store, batch_rows):
    """R2 keeps its digits where targets are large and alike."""
    columns = predicted(mean=1e6)
    columns["prediction"] = columns["prediction"].astype("f8")
    result = evaluate(store(columns, task="regressor"), batch_rows=batch_rows)
    assert_equals_scikit_learn(result, columns["targets"], columns["prediction"])


@pytest.mark.parametrize("batch_rows", [1, 9, 65536])
def test_nan(store, batch_rows):
    """Numbers whose prediction or target is NaN are left out, unit by unit, and counted."""
    columns = predicted((ROWS, 2))
    columns["prediction"][:9, 0] = np.nan
    columns["targets"][[5, 12], 0] = np.nan
    result = evaluate(store(columns, task="regressor"), batch_rows=batch_rows)
    assert (result.count, result.missing) == (2 * ROWS - 10, 10)
    known = ~np.isnan(columns["prediction"][:, 0] + columns["targets"][:, 0])
    pairs = [
        [columns[name][known, 0].astype("f8"), columns[name][:, 1].astype("f8")]
        for name in ("targets", "prediction")
    ]
    for name, function in FIGURES.items():
        by_unit = [function(*unit) for unit in zip(*pairs, strict=True)]
        np.testing.assert_allclose(result.by_unit[name], by_unit, rtol=1e-9)
        assert getattr(result, name) == pytest.approx(np.mean(by_unit))


def test_nothing_known(store):
    """Without a number all figures are NaN; R2 needs two."""
    columns = {"prediction": np.full(3, np.nan, "f4"), "targets": np.zeros(3)}
    result = evaluate(store(columns, task="regressor"))
    assert (result.count, result.missing) == (0, 3)
    assert np.isnan([getattr(result, name) for name in FIGURES]).all()
    one = evaluate(store({name: values[:1] for name, values in predicted().items()}))
    assert np.isnan(one.r2)
    assert one.root_mean_squared_error == pytest.approx(one.mean_absolute_error)


@pytest.mark.parametrize("error", [0, 1])
def test_equal_targets(store, error):
    """If all targets are equal, R2 is 1 without errors and 0 with errors, as in scikit-learn."""
    columns = {"prediction": np.full(5, 3 + error, "f4"), "targets": np.full(5, 3)}
    assert evaluate(store(columns, task="regressor")).r2 == 1 - error


def test_infinite_predictions(store):
    """An infinite prediction makes the errors infinite."""
    columns = predicted()
    columns["prediction"][3] = np.inf
    result = evaluate(store(columns, task="regressor"))
    assert (result.mean_absolute_error, result.r2) == (np.inf, -np.inf)


def test_heads(store):
    """A head is evaluated beside classifiers, with its targets or others, without its task too."""
    first, second = predicted(), predicted((ROWS, 2))
    columns = {
        "age/prediction": first["prediction"],
        "place/prediction": second["prediction"],
        "place/scale": np.ones((ROWS, 2), "f4"),
        "kind/labels": np.zeros(ROWS, "i4"),
        "kind/confidence": np.ones(ROWS, "f4"),
        "targets/age": first["targets"],
        "targets/place": second["targets"],
    }
    for task in (None, {"age": "regressor", "place": "regressor", "kind": "classifier"}):
        file = store(columns, task=task)
        for head, expected in (("age", first), ("place", second)):
            result = evaluate(file, head=head)
            assert_equals_scikit_learn(result, expected["targets"], expected["prediction"])
        result = evaluate(file, head="age", targets=first["targets"][:, None] + 1)
        assert_equals_scikit_learn(result, first["targets"] + 1, first["prediction"])


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"prediction": None}, {}, ValueError, "must have the output 'prediction'"),
        ({"targets": None}, {}, ValueError, "must have the column 'targets'"),
        ({}, {"targets": np.zeros(3)}, ValueError, r"the predictions, \(70,\).*of shape \(3,\)"),
        ({}, {"targets": ["a"] * ROWS}, TypeError, "Targets must be numbers"),
        ({}, {"targets": np.full(ROWS, np.inf)}, ValueError, "must be finite"),
        ({}, {"threshold": 0.5}, ValueError, "binary and multi-label heads"),
        ({"prediction": np.array(["a"] * ROWS)}, {}, ValueError, "Predictions must be numbers"),
        (
            {"prediction": RaggedRows(np.zeros(ROWS), np.ones((ROWS, 1), int))},
            {},
            ValueError,
            "one shape in all rows",
        ),
    ],
)
def test_what_cannot_be_evaluated(store, change, options, error, message):
    """Each thing that is missing or wrong is named."""
    columns = {"scale": np.ones(ROWS, "f4"), **predicted(), **change}
    stored = {name: values for name, values in columns.items() if values is not None}
    file = store(stored, task="regressor")
    with pytest.raises(error, match=message):
        evaluate(file, **options)


def test_no_rows(store):
    """A file without rows has no figures."""
    with pytest.raises(ValueError, match="at least one"):
        evaluate(store({name: values[:0] for name, values in predicted().items()}))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_constant_memory(store):
    """Two million numbers take less than 30 MiB."""
    columns = predicted((1_000_000, 2))
    file = store(columns, step=100_000, task="regressor")
    code = """
import re, sys
from pathlib import Path
from kerasext.evaluation import evaluate

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

before = peak()
result = evaluate(sys.argv[1])
print(result.count, peak() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    count, growth = run.stdout.split()
    assert int(count) == 2_000_000
    assert float(growth) < 30
