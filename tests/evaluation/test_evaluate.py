import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    classification_report,
    confusion_matrix,
    multilabel_confusion_matrix,
)

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.evaluation import evaluate
from kerasext.models import BinaryClassifierModel, ClassifierModel, MultiLabelClassifierModel
from kerasext.storage import RaggedRows

RNG = np.random.default_rng(0)
ROWS = 70
NAMES = ["cat", "größe", "ラベル", "cat"]


def classified(shape=(ROWS,), classes=4):
    """What a classifier says of some labels, and what is true of them."""
    probabilities = RNG.dirichlet(np.full(classes, 0.4), shape).astype("f4")
    labels = probabilities.argmax(axis=-1).astype("i4")
    truth = np.where(RNG.random(shape) < 0.6, labels, RNG.integers(0, classes, shape))
    return {
        "probabilities": probabilities,
        "labels": labels,
        "confidence": probabilities.max(axis=-1),
        "targets": truth,
    }


def of_several(shape=(ROWS, 3)):
    """What a multi-label classifier says, and what is true."""
    probabilities = RNG.random(shape).astype("f4")
    labels = (probabilities > 0.5).astype("i4")
    return {
        "probabilities": probabilities,
        "labels": labels,
        "confidence": np.where(labels, probabilities, 1 - probabilities),
        "targets": np.where(RNG.random(shape) < 0.7, labels, 1 - labels),
    }


def without(columns, *names):
    """The columns but some."""
    return {name: values for name, values in columns.items() if name not in names}


def assert_equals_scikit_learn(result, truth, labels, classes):
    """Accuracy, matrix and report are scikit-learn's on the same arrays."""
    truth, labels = truth.ravel(), labels.ravel()
    assert result.count == len(truth)
    assert result.accuracy == accuracy_score(truth, labels)
    np.testing.assert_array_equal(
        result.confusion_matrix, confusion_matrix(truth, labels, labels=range(classes)), strict=True
    )
    report = classification_report(
        truth, labels, labels=range(classes), output_dict=True, zero_division=0
    )
    names = [*map(str, range(classes)), "macro avg", "weighted avg"]
    for scores, name in zip(result.class_report.values(), names, strict=True):
        assert scores == pytest.approx(report[name], rel=1e-12)


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 5), (ROWS, 4, 3)])
@pytest.mark.parametrize("kept", ["probabilities", "names", "neither"])
def test_classes(store, shape, kept):
    """Figures of rows, tokens and pixels are scikit-learn's, whatever else was stored."""
    columns = classified(shape)
    columns["targets"].flat[0] = 3
    options = {"class_names": NAMES} if kept == "names" else {}
    stored = columns if kept == "probabilities" else without(columns, "probabilities")
    result = evaluate(store(stored, **options))
    assert_equals_scikit_learn(result, columns["targets"], columns["labels"], 4)
    assert result.rows == ROWS
    assert result.unlabelled == 0
    assert result.exact_match_ratio is None
    assert result.class_names == (NAMES if kept == "names" else list("0123"))
    if kept == "names":
        assert list(result.class_report)[:4] == ["cat (0)", "größe", "ラベル", "cat (3)"]


@pytest.mark.parametrize("batch_rows", [1, 7, ROWS, 10**9])
@pytest.mark.parametrize("make", [classified, of_several])
def test_batches(store, batch_rows, make):
    """Whatever the rows that are read at once, the figures are the same."""
    columns = make()
    result, whole = (evaluate(store(columns), batch_rows=rows) for rows in (batch_rows, 10 * ROWS))
    right, sure = columns["labels"] == columns["targets"], columns["confidence"]
    assert result.accuracy == pytest.approx(right.mean(), rel=1e-12)
    np.testing.assert_array_equal(result.confusion_matrix, whole.confusion_matrix)
    np.testing.assert_array_equal(result.calibration_curve.counts, whole.calibration_curve.counts)
    np.testing.assert_array_equal(result.risk_coverage.risk, whole.risk_coverage.risk)
    assert result.calibration_curve.counts.sum() == right.size
    assert result.expected_calibration_error == pytest.approx(
        whole.expected_calibration_error, rel=1e-12
    )
    order = np.argsort(-sure.ravel(), kind="stable")
    risks = np.cumsum(~right.ravel()[order]) / np.arange(1, right.size + 1)
    assert result.area_under_risk_coverage == pytest.approx(risks.mean(), abs=1e-3)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_expected_calibration_error(store, bins):
    """It is the mean distance of confidence and accuracy over the bins of the definition."""
    columns = classified()
    result = evaluate(store(columns), bins=bins)
    right, sure = columns["labels"] == columns["targets"], columns["confidence"]
    total = 0.0
    for number in range(bins):
        chosen = (sure > number / bins) & (sure <= (number + 1) / bins)
        total += abs(right[chosen].sum() - sure[chosen].sum(dtype="f8"))
        assert result.calibration_curve.counts[number] == chosen.sum()
    assert result.expected_calibration_error == pytest.approx(total / ROWS, rel=1e-9)


@pytest.mark.parametrize("kept", ["probabilities", "task"])
@pytest.mark.parametrize("shape", [(ROWS, 3), (ROWS, 5, 3)])
def test_several_labels(store, kept, shape):
    """Several labels a row have a matrix and a report each, as in scikit-learn."""
    columns = of_several(shape)
    stored = columns if kept == "probabilities" else without(columns, "probabilities")
    result = evaluate(store(stored, task="multilabel", class_names=["rain", "wind", "föhn"]))
    truth, labels = columns["targets"].reshape(-1, 3), columns["labels"].reshape(-1, 3)
    np.testing.assert_array_equal(
        result.confusion_matrix, multilabel_confusion_matrix(truth, labels), strict=True
    )
    assert result.exact_match_ratio == accuracy_score(truth, labels)
    assert result.accuracy == pytest.approx((truth == labels).mean(), rel=1e-12)
    assert result.count == truth.size
    report = classification_report(
        truth, labels, target_names=["rain", "wind", "föhn"], output_dict=True, zero_division=0
    )
    for name, scores in result.class_report.items():
        assert scores == pytest.approx(report[name], rel=1e-12)
    assert list(result.class_report)[:3] == result.class_names == ["rain", "wind", "föhn"]


def test_more_labels_than_there_may_be_classes(store):
    """Several labels a row may be very many, because no pairs of them are counted."""
    zeros = np.zeros((2, 2**15 + 1), "i1")
    columns = {"labels": zeros, "confidence": zeros.astype("f4"), "targets": zeros}
    assert evaluate(store(columns, task="multilabel")).accuracy == 1


def test_names_of_something_else(store):
    """Names that are not as many as the labels are not taken for theirs."""
    columns = without(of_several(), "probabilities")
    result = evaluate(store(columns, task="multilabel", class_names=["rain", "wind"]))
    assert result.class_names == ["0", "1", "2"]


def test_one_label_of_its_own(store):
    """A multi-label classifier of one label is none of one class."""
    columns = of_several((ROWS, 1))
    result = evaluate(store(columns))
    expected = confusion_matrix(columns["targets"], columns["labels"])
    np.testing.assert_array_equal(result.confusion_matrix, expected[None])
    assert result.class_names == ["0"]


@pytest.mark.parametrize("confidence", [np.nan, 0.99])
@pytest.mark.parametrize("make", [classified, of_several])
def test_without_a_label(store, make, confidence):
    """Labels -1 are wrong, and the least sure, but neither in the matrix nor in the calibration."""
    columns = make()
    nowhere = np.zeros(columns["labels"].shape, bool)
    nowhere[[3, 50]] = True
    columns["labels"][nowhere] = -1
    columns["confidence"][nowhere] = confidence
    result = evaluate(store(columns))
    right = columns["labels"] == columns["targets"]
    assert result.unlabelled == nowhere.sum()
    assert result.count == right.size
    assert result.accuracy == pytest.approx(right.sum() / right.size)
    assert (
        result.confusion_matrix.sum() == result.calibration_curve.counts.sum() == (~nowhere).sum()
    )
    assert result.risk_coverage.risk[-1] == pytest.approx(1 - result.accuracy)
    before = result.risk_coverage.coverage[-2], result.risk_coverage.risk[-2]
    assert before == pytest.approx(((~nowhere).mean(), 1 - right[~nowhere].mean()))
    if make is of_several:
        assert result.exact_match_ratio == right.all(axis=1).mean()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_little_above_one(store, dtype):
    """A confidence that rounding has left outside of [0, 1] is at its end."""
    columns = classified()
    columns["confidence"] = np.linspace(-0.0005, 1.0005, ROWS, dtype=dtype)
    result = evaluate(store(columns))
    assert result.calibration_curve.counts.sum() == ROWS
    assert result.risk_coverage.coverage[-1] == 1
    assert 0.9 < result.calibration_curve.confidence[-1] < 1


def test_one_probability_a_row(store):
    """Probabilities of the label alone don't make a multi-label classifier."""
    columns = classified()
    columns["probabilities"] = columns["confidence"]
    result = evaluate(store(columns))
    assert_equals_scikit_learn(result, columns["targets"], columns["labels"], 4)


def test_never_a_label(store):
    """A model that yields nothing but NaN is always wrong, and has no calibration."""
    columns = classified()
    columns["labels"][:] = -1
    columns["confidence"][:] = np.nan
    result = evaluate(store(columns))
    assert (result.accuracy, result.area_under_risk_coverage) == (0, 1)
    assert np.isnan(result.expected_calibration_error)
    assert not result.confusion_matrix.any()


def test_heads(store):
    """Each head has its targets, names and classes."""
    first, second = classified(), of_several()
    columns = {f"a/b/{name}": first[name] for name in first if name != "targets"}
    columns |= {f"c/{name}": second[name] for name in second if name != "targets"}
    columns |= {"targets/a/b": first["targets"], "targets/c": second["targets"]}
    file = store(columns, class_names={"a/b": NAMES, "c": ["rain", "wind", "föhn"]})
    for head, expected in (("a/b", first), ("c", second)):
        result = evaluate(file, head=head)
        assert result.accuracy == (expected["labels"] == expected["targets"]).mean()
        assert len(result.class_names) == len(result.confusion_matrix)
    assert result.class_names == ["rain", "wind", "föhn"]


def test_head_beside_the_root(store):
    """Names of the root are not those of a head."""
    first, second = classified(), classified(classes=6)
    columns = {**first, **{f"a/{name}": second[name] for name in second if name != "targets"}}
    file = store(columns, class_names={"": NAMES})
    result = evaluate(file, head="a", targets=second["targets"])
    assert result.class_names == list("012345")
    assert evaluate(file).class_names == NAMES


def test_targets_from_elsewhere(store):
    """Targets need not be in the file, and a binary classifier without names has two classes."""
    columns = classified(classes=2)
    columns["labels"][:], columns["targets"][:] = 0, 0
    file = store(without(columns, "targets", "probabilities"), task="binary")
    with PredictionFile(file) as predictions:
        result = evaluate(predictions, targets=columns["targets"][:, None])
        np.testing.assert_array_equal(result.confusion_matrix, [[ROWS, 0], [0, 0]])
        assert predictions.rows == ROWS  # still open


def test_one_hot_tells_the_classes(store):
    """One-hot targets say how many classes there are where nothing else does."""
    columns = without(classified(), "probabilities")
    columns["targets"] = np.eye(6)[columns["targets"]]
    assert evaluate(store(columns)).confusion_matrix.shape == (6, 6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
def test_fixed_point(store, dtype):
    """Confidence that was stored short counts as what it is read as."""
    columns = classified()
    file = store(columns, dtypes={"confidence": dtype, "labels": "int8"})
    result = evaluate(file)
    sure = PredictionFile(file)["confidence"][:]
    assert result.accuracy == (columns["labels"] == columns["targets"]).mean()
    filled = result.calibration_curve.counts > 0
    mean = np.average(
        result.calibration_curve.confidence[filled], weights=result.calibration_curve.counts[filled]
    )
    assert mean == pytest.approx(sure.mean(dtype="f8"), rel=1e-6)


def test_incomplete(store):
    """Of an unfinished file the committed rows are evaluated."""
    columns = classified()
    result = evaluate(store(columns, complete=False))
    assert_equals_scikit_learn(result, columns["targets"], columns["labels"], 4)


def test_names_of_a_model(path, rows):
    """Names stored as targets give the figures of their numbers."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(3, activation="softmax")(inputs)
    model = ClassifierModel(inputs, outputs, class_names=["ant", "bee", "cat"])
    numbers = np.arange(len(rows)) % 3
    predict_to_hdf5(model, rows, path, targets=numbers, verbose=0).close()
    expected = evaluate(path)
    names = [model.class_names[number] for number in numbers]
    predict_to_hdf5(model, rows, path, mode="w", targets=names, verbose=0).close()
    found = evaluate(path)
    np.testing.assert_array_equal(found.confusion_matrix, expected.confusion_matrix)
    assert found.class_report == expected.class_report


def test_of_a_model(path, rows):
    """What the three mixins predict is evaluated without another word."""
    inputs = keras.Input((8,))
    for make, units, activation, shape in (
        (ClassifierModel, 3, "softmax", (70,)),
        (BinaryClassifierModel, 1, "sigmoid", (70, 1)),
        (MultiLabelClassifierModel, 3, "sigmoid", (70, 3)),
    ):
        truth = RNG.integers(0, 2, shape)
        model = make(inputs, keras.layers.Dense(units, activation=activation)(inputs))
        predictions = predict_to_hdf5(model, rows, path, mode="w", targets=truth, batch_size=23)
        result = evaluate(predictions)
        right = predictions["labels"][:].reshape(shape) == truth
        assert result.accuracy == pytest.approx(right.mean(), rel=1e-12)
        assert (result.exact_match_ratio is None) == (make is not MultiLabelClassifierModel)
        predictions.close()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": None}, ValueError, r"output 'labels'; predict with one of the mixins"),
        ({"confidence": None}, ValueError, r"the output 'confidence'.*\['labels', 'prob"),
        ({"targets": None}, ValueError, "the column 'targets'"),
        ({"labels": np.zeros(ROWS)}, TypeError, "'labels' of dtype float64"),
        ({"confidence": np.zeros(ROWS, int)}, TypeError, "'confidence' of dtype int64"),
        ({"confidence": np.zeros((ROWS, 4))}, ValueError, r"\(70,\) and \(70, 4\)"),
        ({"confidence": np.full(ROWS, 1.2)}, ValueError, r"in \[0, 1\].*from 0.* to 1\.2"),
        ({"labels": np.full(ROWS, -2)}, ValueError, "'labels' from -2 to -2"),
        ({"labels": np.full(ROWS, 4)}, ValueError, "The labels must be less than 4"),
        ({"targets": np.full(ROWS, 4)}, ValueError, "The targets must be less than 4"),
        ({"targets": np.zeros((ROWS, 3))}, ValueError, r"of shape \(70, 3\)"),
    ],
)
def test_files_that_cannot_be_evaluated(store, change, error, message):
    """Each thing that is missing or wrong is named."""
    columns = {**classified(), **change}
    file = store({name: values for name, values in columns.items() if values is not None})
    with pytest.raises(error, match=message):
        evaluate(file)


def test_unknown_head(store):
    """A head that is not there is told with those that are."""
    columns = {f"a/{name}": values for name, values in classified().items()}
    file = store(columns)
    with pytest.raises(ValueError, match=r"pass `head`, one of \['a'\]\. Received: head='b'"):
        evaluate(file, head="b")


def test_the_only_head(store):
    """The only head needs no name, as in a report."""
    columns = classified()
    file = store({f"a/{name}": columns[name] for name in without(columns, "targets")})
    result = evaluate(file, targets=columns["targets"])
    assert result.accuracy == (columns["labels"] == columns["targets"]).mean()
    with pytest.raises(ValueError, match="the nearest is 'kind'"):
        evaluate(store({f"kind/{name}": rows for name, rows in columns.items()}), head="knd")


@pytest.mark.parametrize("threshold", [0.2, [0.1, 0.5, 0.9]])
@pytest.mark.parametrize("batch_rows", [7, 65536])
def test_another_threshold_for_several_labels(store, threshold, batch_rows):
    """The figures are scikit-learn's of the labels that the threshold gives."""
    columns = of_several()
    labels = (columns["probabilities"] > np.float32(threshold)).astype("i4")
    file = store(without(columns, "confidence"), task="multilabel")
    result = evaluate(file, threshold=threshold, batch_rows=batch_rows)
    assert result.exact_match_ratio == accuracy_score(columns["targets"], labels)
    np.testing.assert_array_equal(
        result.confusion_matrix, multilabel_confusion_matrix(columns["targets"], labels)
    )


@pytest.mark.parametrize("kind", [BinaryClassifierModel, MultiLabelClassifierModel])
def test_another_threshold_is_that_of_a_model(path, rows, kind):
    """All figures are those of a file that a model with this threshold predicts."""
    inputs = keras.Input((8,))
    units = 1 if kind is BinaryClassifierModel else 3
    outputs = keras.layers.Dense(units, activation="sigmoid")(inputs)
    truth = RNG.integers(0, 2, (len(rows), units) if units > 1 else len(rows))
    options = {"targets": truth, "mode": "w", "verbose": 0}
    found = []
    for threshold, again in ((0.5, 0.3), (0.3, None)):
        model = kind(inputs, outputs, threshold=threshold)
        predict_to_hdf5(model, rows, path, **options).close()
        found.append(evaluate(path, threshold=again))
    first, second = found
    np.testing.assert_array_equal(first.confusion_matrix, second.confusion_matrix)
    np.testing.assert_array_equal(first.calibration_curve.counts, second.calibration_curve.counts)
    np.testing.assert_array_equal(
        first.calibration_curve.confidence, second.calibration_curve.confidence
    )
    assert first.area_under_risk_coverage == second.area_under_risk_coverage


def test_thresholds_that_do_not_fit(store):
    """A threshold is for heads that have one, and needs their probabilities."""
    with pytest.raises(ValueError, match="binary and multi-label heads"):
        evaluate(store(classified(), task="classifier"), threshold=0.5)
    with pytest.raises(ValueError, match="one for each of its 3 labels"):
        evaluate(store(of_several()), threshold=[0.5, 0.5])
    with pytest.raises(ValueError, match="must have the output 'probabilities'"):
        evaluate(store(without(of_several(), "probabilities"), task="multilabel"), threshold=0.5)


def test_ragged_labels(store):
    """Labels whose rows differ in shape are refused by name."""
    tokens = RaggedRows(np.arange(10, dtype="i4"), np.array([[4], [0], [3], [2], [1]]))
    confidence = RaggedRows(np.zeros(10, "f4"), tokens.row_shapes)
    file = store({"labels": tokens, "confidence": confidence})
    with pytest.raises(ValueError, match=r"Rows of different shapes.*'labels'"):
        evaluate(file)


def test_no_rows(store):
    """A file without rows has no figures."""
    with pytest.raises(ValueError, match=r"at least one label.*shape \(0,\)"):
        evaluate(store({name: values[:0] for name, values in classified().items()}))


@pytest.mark.parametrize("argument", ["bins", "batch_rows"])
def test_arguments(store, argument):
    """Numbers that make no sense are refused before anything is read."""
    with pytest.raises(ValueError, match=f"`{argument}` must be at least 1.*{argument}=0"):
        evaluate(store(classified()), **{argument: 0})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("shape", [(1_000_000,), (2000, 500)])
@pytest.mark.parametrize("is_one_hot", [False, True])
def test_constant_memory(store, shape, is_one_hot):
    """A million labels take less than 40 MiB, in few rows or many; read at once, more than 50."""
    labels = np.resize(np.arange(10, dtype="i4"), shape)
    confidence = np.linspace(0, 1, labels.size, dtype="f4").reshape(shape)
    targets = np.eye(10, dtype="u1")[labels] if is_one_hot else labels
    columns = {"labels": labels, "confidence": confidence, "targets": targets}
    file = store(columns, step=shape[0] // 10)
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
    assert int(count) == labels.size
    assert float(growth) < 40
