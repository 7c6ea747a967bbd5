import warnings

import numpy as np
import pytest

from kerasext.calibration import (
    Abstention,
    fit_calibration,
    fit_prediction_sets,
)
from kerasext.evaluation import evaluate

ROWS = 600
RNG = np.random.default_rng(0)
NEW = ("negative_log_likelihood", "brier_score", "uncalibrated", "prediction_sets", "abstention")


def sharp(probabilities):
    """Probabilities of a model that is too sure."""
    powers = probabilities.astype("f8") ** 3
    return (powers / powers.sum(axis=-1, keepdims=True)).astype("f4")


def drawn(task, rows=ROWS):
    """Probabilities of a model that is too sure, and targets."""
    if task == "classifier":
        true = RNG.dirichlet(np.ones(4), rows)
        return sharp(true), (true.cumsum(axis=1) < RNG.random((rows, 1))).sum(axis=1).clip(0, 3)
    true = RNG.random((rows, 3 if task == "multilabel" else 1))
    truth = (RNG.random(true.shape) < true).astype("i8")
    both = sharp(np.stack([1 - true, true], axis=-1))
    return (both[..., 1], truth) if task == "multilabel" else (both[:, 0], truth[:, 0])


def outputs_of(probabilities, task):
    """What the mixins yield for these."""
    if task == "classifier":
        labels, confidence = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
    else:
        positive = probabilities if task == "multilabel" else probabilities[..., 1]
        labels, confidence = positive > 0.5, np.maximum(positive, 1 - positive)
    return {
        "probabilities": probabilities,
        "labels": labels.astype("i4"),
        "confidence": confidence.astype("f4"),
    }


class Calibrated:
    """A head with a calibration, sets and an abstention, and what it yields."""

    def __init__(self, task):
        self.task = task
        fit, truth = drawn(task)
        self.calibration = fit_calibration(fit, truth, task=task)
        self.sets = fit_prediction_sets(self.calibration.apply(fit), truth, task=task)
        shares = ((0.8,) * 3, (0.4,) * 3, (0.1,) * 3) if task == "multilabel" else (0.8, 0.4, 0.1)
        threshold = (0.9, 0.8, 0.7) if task == "multilabel" else 0.8
        self.abstention = Abstention(threshold, 0.1, 0.95, ROWS, *shares)
        self.before, self.truth = drawn(task)
        self.outputs = outputs_of(self.calibration.apply(self.before), task)
        self.outputs["targets"] = self.truth
        self.metadata = {
            "calibration": self.calibration.as_json(),
            "prediction_sets": self.sets.as_json(),
            "abstention": self.abstention.as_json(),
        }
        sets = self.sets.apply(self.outputs["probabilities"])
        self.more = {
            "prediction_set": sets,
            "set_size": sets.sum(axis=-1).astype("i4"),
            "abstained": self.abstention.apply(self.outputs["confidence"]),
        }

    def evaluated(self, store, *without, more=True, **options):
        """The evaluation of a file of these outputs, without some."""
        columns = {**self.outputs, **(self.more if more else {})}
        columns = {name: values for name, values in columns.items() if name not in without}
        return evaluate(store(columns, task=self.task, metadata=self.metadata), **options)


def same(first, second):
    """Whether two evaluations say the same of probabilities, sets and abstention."""
    return all(str(getattr(first, name)) == str(getattr(second, name)) for name in NEW)


@pytest.fixture(params=["classifier", "binary", "multilabel"])
def head(request):
    """A head of each task."""
    return Calibrated(request.param)


def test_uncalibrated(head, store):
    """The figures without the calibration are those of the probabilities before it."""
    result = head.evaluated(store)
    plain = evaluate(store({**outputs_of(head.before, head.task), "targets": head.truth}))
    before = result.uncalibrated
    assert before.accuracy == plain.accuracy
    assert before.negative_log_likelihood == pytest.approx(plain.negative_log_likelihood, rel=1e-4)
    assert before.brier_score == pytest.approx(plain.brier_score, rel=1e-4)
    assert before.expected_calibration_error == pytest.approx(
        plain.expected_calibration_error, abs=0.02
    )
    assert result.negative_log_likelihood < before.negative_log_likelihood
    assert result.expected_calibration_error < before.expected_calibration_error - 0.03
    assert (plain.uncalibrated, plain.prediction_sets, plain.abstention) == (None, None, None)


def test_sets(head, store):
    """The sets are those that are stored."""
    report = head.evaluated(store).prediction_sets
    is_true = head.truth == 1
    sets = head.more["prediction_set"]
    if head.task != "multilabel":
        is_true = np.eye(sets.shape[1], dtype=bool)[head.truth]
    share = (sets & is_true).sum(axis=1) / np.maximum(is_true.sum(axis=1), 1)
    assert report.coverage == pytest.approx(share[is_true.any(axis=1)].mean())
    assert 0.84 < report.coverage < 0.96
    assert report.mean_size == pytest.approx(sets.sum(axis=1).mean())
    assert (report.expected_interval is None) is (head.task == "multilabel")


def test_abstention(head, store):
    """What is kept are the labels at or above the threshold, of each label its own."""
    report = head.evaluated(store).abstention
    outputs = head.outputs
    kept = outputs["confidence"] >= np.float32(head.abstention.threshold)
    is_right = outputs["labels"] == head.truth
    assert report.coverage == pytest.approx(kept.mean())
    assert report.error_rate == pytest.approx(1 - is_right[kept].mean())
    assert (report.risk, report.confidence_level) == (0.1, 0.95)
    if head.task != "multilabel":
        assert report.by_label is None
        return
    np.testing.assert_allclose(report.by_label["coverage"], kept.mean(axis=0))
    wrong = (kept & ~is_right).sum(axis=0) / kept.sum(axis=0)
    np.testing.assert_allclose(report.by_label["error_rate"], wrong)


def test_outputs_that_are_not_stored(head, store):
    """Sets and abstention are made of what is there; without probabilities there are no scores."""
    whole = head.evaluated(store)
    assert same(head.evaluated(store, more=False), whole)
    result = head.evaluated(store, "probabilities")
    assert (result.negative_log_likelihood, result.brier_score, result.uncalibrated) == (None,) * 3
    assert str(result.prediction_sets) == str(whole.prediction_sets)
    result = head.evaluated(store, "probabilities", more=False)
    assert result.prediction_sets is None
    assert str(result.abstention) == str(whole.abstention)


def test_batches_make_no_difference(head, store):
    """However many rows are read at once, the figures are the same."""
    first, second = head.evaluated(store), head.evaluated(store, batch_rows=7)
    for name in ("negative_log_likelihood", "brier_score"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), rel=1e-12)
    assert first.prediction_sets.coverage == pytest.approx(second.prediction_sets.coverage)
    for name in ("size_counts", "coverage_by_class", "coverage_by_size"):
        one, other = (getattr(result.prediction_sets, name) for result in (first, second))
        np.testing.assert_allclose(one, other)
    assert str(first.abstention) == str(second.abstention)
    assert first.uncalibrated.accuracy == second.uncalibrated.accuracy


@pytest.mark.parametrize("dtype", ["f2", "uint8"])
def test_reduced_precision(store, dtype):
    """Of rounded probabilities there is a Brier score, and nothing that needs their logarithms."""
    head = Calibrated("classifier")
    columns = {**head.outputs, **head.more}
    if dtype == "f2":
        columns["probabilities"] = columns["probabilities"].astype("f2")
        options = {}
    else:
        options = {"dtypes": {"probabilities": dtype}}
    result = evaluate(store(columns, task=head.task, metadata=head.metadata, **options))
    assert result.brier_score == pytest.approx(head.evaluated(store).brier_score, abs=0.01)
    assert (result.negative_log_likelihood, result.uncalibrated) == (None, None)
    assert result.prediction_sets is not None
    del columns["prediction_set"]
    result = evaluate(store(columns, task=head.task, metadata=head.metadata, **options))
    assert result.prediction_sets is None


def test_another_threshold(store):
    """The labels of another threshold have other confidences, which decide what is kept."""
    head = Calibrated("binary")
    result = head.evaluated(store, threshold=0.2)
    positive = head.outputs["probabilities"][:, 1]
    confidence = np.where(positive > 0.2, positive, 1 - positive)
    assert result.abstention.coverage == pytest.approx((confidence >= np.float32(0.8)).mean())
    labels = head.before[:, 1] > 0.2
    assert result.uncalibrated.accuracy == pytest.approx((labels == head.truth).mean())


def test_nan(store):
    """A row with NaN is in no set and is not kept, and the scores leave it out."""
    head = Calibrated("classifier")
    some = {name: np.array(values[:50]) for name, values in {**head.outputs, **head.more}.items()}
    some["probabilities"][3] = some["confidence"][3] = np.nan
    some["labels"][3] = -1
    for without in (("prediction_set", "abstained"), ()):
        columns = {name: values for name, values in some.items() if name not in without}
        if not without:
            columns["prediction_set"][3], columns["abstained"][3] = False, True
        result = evaluate(store(columns, task="classifier", metadata=head.metadata))
        assert result.prediction_sets.size_counts[0] >= 1
        assert result.abstention.coverage < 1
        kept = head.outputs["confidence"][:50] >= np.float32(0.8)
        kept[3] = False
        assert result.abstention.coverage == pytest.approx(kept.mean())
        assert np.isfinite(result.negative_log_likelihood)
        assert np.isfinite(result.uncalibrated.brier_score)


def test_positions(store):
    """Pixels and tokens have sets, whose coverage is the mean over rows, without an interval."""
    probabilities = RNG.dirichlet(np.ones(3), (40, 6)).astype("f4")
    truth = RNG.integers(0, 3, (40, 6))
    sets = fit_prediction_sets(probabilities, truth, task="classifier")
    columns = {**outputs_of(probabilities, "classifier"), "targets": truth}
    path = store(columns, task="classifier", metadata={"prediction_sets": sets.as_json()})
    report = evaluate(path).prediction_sets
    assert report.coverage == pytest.approx(sets.coverage)
    assert report.expected_interval is None


def test_heads(store):
    """Each head has what was fitted for it."""
    kind, sick = Calibrated("classifier"), Calibrated("binary")
    columns = {f"kind/{name}": values for name, values in kind.outputs.items() if name != "targets"}
    columns |= {
        f"sick/{name}": values for name, values in sick.outputs.items() if name != "targets"
    }
    columns |= {"targets/kind": kind.truth, "targets/sick": sick.truth}
    metadata = {
        "task": {"kind": "classifier", "sick": "binary"},
        "calibration": {"kind": kind.metadata["calibration"]},
        "prediction_sets": {"sick": sick.metadata["prediction_sets"]},
    }
    path = store(columns, metadata=metadata)
    result = evaluate(path, head="kind")
    assert result.uncalibrated is not None
    assert result.prediction_sets is None
    result = evaluate(path, head="sick")
    assert result.uncalibrated is None
    assert result.prediction_sets.confidence_level == 0.9


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("calibration", {"scale": "x"}, "Calibration must have the keys"),
        ("prediction_sets", {"threshold": [[]]}, "PredictionSets must have the keys"),
        ("abstention", {"risk": 3}, "Abstention must have the keys"),
    ],
)
def test_metadata_that_are_none(store, name, value, message):
    """What was not fitted by this library is an error that says what is missing."""
    head = Calibrated("classifier")
    head.metadata[name] = value
    with pytest.raises(ValueError, match=message):
        head.evaluated(store)


def test_outputs_of_another_shape(store):
    """Outputs of the model that are only called so are none."""
    labels = np.arange(30) % 3
    columns = {"labels": labels.astype("i4"), "confidence": np.ones(30, "f4"), "targets": labels}
    columns |= {"probabilities": np.zeros((30, 3, 5), "f4"), "abstained": np.zeros((30, 2), bool)}
    columns |= {"prediction_set": np.zeros((30, 5), "i4")}
    result = evaluate(store(columns, metadata=Calibrated("classifier").metadata))
    assert (result.accuracy, result.brier_score, result.prediction_sets) == (1, None, None)
    assert result.abstention.coverage == 1


def test_stale(store):
    """A file that says that something is stale is evaluated with a warning that names it."""
    head = Calibrated("classifier")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head.evaluated(store)
    head.metadata["stale"] = ["calibration", "abstention"]
    with pytest.warns(UserWarning, match="calibration and abstention must be fitted on the weig"):
        result = head.evaluated(store)
    assert result.uncalibrated is not None
