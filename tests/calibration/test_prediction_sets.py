"""Sets of classes, and whether they hold what is true as often as promised."""

import json
import math

import numpy as np
import pytest
from overconfident import logits_and_targets, noisy_digits, softmax

from kerasext.calibration import PredictionSets, fit_prediction_sets

LEVEL = 0.9


def splits(rows, of, number=1000, seed=0):
    """Random splits of rows: those to fit, and the others."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        order = rng.permutation(of)
        yield order[:rows], order[rows:]


def assert_close(values, expected=0.0):
    """The mean is within three standard errors."""
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - expected) <= 3 * error, (np.mean(values), expected, error)


@pytest.mark.parametrize("rows", [19, 50, 100, 500])
def test_coverage(rows):
    """Over 1,000 splits the coverage of new rows is `ceil((n + 1) * level) / (n + 1)`."""
    p, targets = noisy_digits()
    true = p[np.arange(len(p)), targets]
    found = []
    for fitted, others in splits(rows, len(p)):
        sets = fit_prediction_sets(p[fitted], targets[fitted], task="classifier")
        found.append((true[others] >= np.float32(sets.threshold)).mean())
    assert_close(found, math.ceil(round((rows + 1) * LEVEL, 9)) / (rows + 1))


def test_coverage_by_class():
    """With `class_conditional` the coverage is that of the rows of each class."""
    logits, targets = logits_and_targets(900, 3)
    logits[:, 0] -= 4  # a class that the model seldom sees
    p = softmax(logits).astype("f4")
    off = []
    for fitted, others in splits(200, len(p)):
        sets = fit_prediction_sets(
            *(p[fitted], targets[fitted]), task="classifier", class_conditional=True
        )
        inside = sets.apply(p[others])[np.arange(len(others)), targets[others]]
        row = []
        for number in range(3):
            rows = (targets[fitted] == number).sum()
            expected = math.ceil(round((rows + 1) * LEVEL, 9)) / (rows + 1)
            row.append(inside[targets[others] == number].mean() - expected)
        off.append(row)
    for column in np.transpose(off):
        assert_close(column)
    marginal = fit_prediction_sets(p, targets, task="classifier").apply(p)
    assert marginal[targets == 0, 0].mean() < LEVEL - 0.05


def images(rows, rng, positions=50):
    """Probabilities of two classes at each pixel, of images that are hard as a whole."""
    hard = rng.beta(0.6, 2.0, rows)[:, None]
    true = np.clip(1 - hard * rng.uniform(size=(rows, positions)) ** 0.5, 0, 1).astype("f4")
    return np.stack([1 - true, true], axis=-1), np.ones(true.shape, int)


def test_coverage_of_pixels():
    """The mean over images of the share of pixels whose set holds the target is as promised."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        sets = fit_prediction_sets(*images(30, rng), task="classifier")
        p, _ = images(50, rng)
        found.append(sets.apply(p)[..., 1].mean())
    error = np.std(found) / math.sqrt(len(found))
    assert LEVEL - 3 * error < np.mean(found) < LEVEL + 1 / 31 + 3 * error


def tags(rows, rng):
    """Probabilities of five labels, and which of them are true; of some rows none is."""
    hard = rng.normal(size=(rows, 1))
    logits = 2 * rng.normal(size=(rows, 5)) + hard - 1
    p = 1 / (1 + np.exp(-3 * logits))
    return p.astype("f4"), (rng.logistic(size=p.shape) < logits).astype(int)


def test_coverage_of_labels():
    """The mean over rows of the share of true labels in the set is as promised."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        sets = fit_prediction_sets(*tags(50, rng), task="multilabel")
        p, targets = tags(300, rng)
        has_some = targets.any(axis=1)
        hit = (sets.apply(p) & (targets == 1)).sum(axis=1)[has_some]
        found.append((hit / targets.sum(axis=1)[has_some]).mean())
    error = np.std(found) / math.sqrt(len(found))
    assert LEVEL - 3 * error < np.mean(found) < LEVEL + 2 / 30 + 3 * error


def test_by_hand():
    """Of nine rows the least probability of a target is the threshold, of 19 the second least."""
    true = np.linspace(0.5, 0.9, 19).astype("f4")
    p = np.stack([true, 1 - true], axis=1)
    zeros = np.zeros(19, int)
    sets = fit_prediction_sets(p[:9], zeros[:9], task="binary", fitted_on="net")
    assert sets.threshold == true[0]
    assert (sets.coverage, sets.rows, sets.fitted_on) == (1, 9, "net")
    assert sets.mean_size == pytest.approx(10 / 9)  # the first row has 0.5 twice
    sets = fit_prediction_sets(p, zeros, task="binary")
    assert sets.threshold == true[1]
    assert sets.coverage == pytest.approx(18 / 19)


def test_ties_are_exact():
    """The threshold is a float32 that occurs, and rows with just this probability are covered."""
    true = np.float32([0.1] * 3 + [0.7] * 40)
    p = np.stack([1 - true, true], axis=1)
    for dtype in ("f4", "f8"):
        sets = fit_prediction_sets(p.astype(dtype), np.ones(43, int), task="binary")
        assert np.float32(sets.threshold) == np.float32(0.7)
        assert sets.apply(p.astype(dtype))[3:, 1].all()
        assert not sets.apply(np.nextafter(p, np.float32(0)))[3:, 1].any()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_doubles_compare_as_float32(dtype):
    """A probability that float32 rounds up, such as 0.1, reaches the threshold it became."""
    p = np.tile([0.9, 0.1], (40, 1)).astype(dtype)
    sets = fit_prediction_sets(p, np.ones(40, int), task="binary")
    assert sets.threshold == float(np.float32(0.1)) > 0.1
    assert sets.apply(p).all()


@pytest.mark.parametrize("dtype", ["?", "u1", "u8"])
def test_dtypes_of_targets(dtype):
    """Bools and unsigned integers are classes like others."""
    logits, targets = logits_and_targets(100, 2)
    p = softmax(logits).astype("f4")
    for by_class in (False, True):
        sets, expected = (
            fit_prediction_sets(p, numbers, task="binary", class_conditional=by_class)
            for numbers in (targets.astype(dtype), targets)
        )
        assert sets == expected


def test_classes_with_too_few_rows():
    """They are in every set, and are named."""
    logits, targets = logits_and_targets(300, 5)
    kept = (targets < 3) | (np.cumsum(targets == 3) <= 8) & (targets == 3)
    p = softmax(logits[kept]).astype("f4")
    sets = fit_prediction_sets(p, targets[kept], task="classifier", class_conditional=True)
    assert sets.classes_always_in == (3, 4)
    assert sets.apply(p)[:, 3:].all()
    assert not sets.apply(p)[:, :3].all(axis=0).any()
    assert "too few rows: classes [3, 4]" in str(sets)


def test_nan():
    """A row with NaN has an empty set, and is missed: it lowers the threshold of the others."""
    logits, targets = logits_and_targets(100, 4)
    p = softmax(logits).astype("f4")
    whole = fit_prediction_sets(p, targets, task="classifier")
    p[:5] = np.nan
    sets = fit_prediction_sets(p, targets, task="classifier")
    assert not sets.apply(p)[:5].any()
    assert sets.threshold <= whole.threshold
    assert sets.rows == 100
    assert sets.coverage >= LEVEL
    p[:20] = np.nan
    with pytest.raises(ValueError, match=r"can't be reached, .* 20 NaN in 100 targets"):
        fit_prediction_sets(p, targets, task="classifier")


def test_empty_sets():
    """A set may be empty; of half precision the sets are those of the same float32 numbers."""
    sets = PredictionSets("lac", 0.9, False, 0.5, 100, 0.9, 1.0)
    assert sets.apply(np.float16([[0.4, 0.3, 0.3], [0.2, 0.5, 0.3]])).tolist() == [
        [False, False, False],
        [False, True, False],
    ]


@pytest.mark.parametrize("shape", [(40, 3), (40, 7, 3), (40, 2, 5, 3)])
def test_shapes(shape):
    """Sets have the shape of the probabilities, whatever stands between rows and classes."""
    logits, targets = logits_and_targets(math.prod(shape[:-1]), 3)
    p, targets = softmax(logits).astype("f4").reshape(shape), targets.reshape(shape[:-1])
    sets = fit_prediction_sets(p, targets, task="classifier", confidence_level=0.8)
    inside = sets.apply(p)
    assert inside.shape == shape
    assert inside.dtype == bool
    covered = np.take_along_axis(inside, targets[..., None], axis=-1)
    assert sets.coverage == pytest.approx(covered.mean())
    assert sets.mean_size == pytest.approx(inside.sum(axis=-1).mean())


def test_labels_at_positions():
    """All true labels of a row, at whichever position, count as one loss of the row."""
    rng = np.random.default_rng(1)
    p, targets = tags(120, rng)
    together = fit_prediction_sets(p, targets, task="multilabel")
    p, targets = p.reshape(120, 5, 1), targets.reshape(120, 5, 1)
    apart = fit_prediction_sets(p, targets, task="multilabel")
    assert (apart.threshold, apart.rows) == (together.threshold, together.rows)
    assert together.rows == targets.any(axis=1).sum() < 120


def test_text():
    """It prints what was fitted, on how many rows, and the figures."""
    p, targets = noisy_digits()
    sets = fit_prediction_sets(p, targets, task="classifier")
    first, second = str(sets).splitlines()
    assert first.startswith("prediction sets (lac) of confidence level 0.9, probability at least ")
    assert first.endswith("fitted on 1,297 rows")
    assert second == f"coverage {sets.coverage:.4g}, mean size {sets.mean_size:.4g} on these rows"


@pytest.mark.parametrize("class_conditional", [False, True])
def test_json(class_conditional):
    """The sets come back from JSON bit for bit."""
    p, targets = noisy_digits()
    sets = fit_prediction_sets(
        p, targets, task="classifier", class_conditional=class_conditional, fitted_on="a"
    )
    again = PredictionSets.from_json(json.loads(json.dumps(sets.as_json(), allow_nan=False)))
    assert again == sets
    assert hash(again) == hash(sets)


def even(rows=100, **changes):
    """Arguments of the fit on rows of five classes, four of each twenty rows."""
    return {
        "probabilities": np.full((rows, 5), 0.2, "f4"),
        "targets": np.arange(rows) % 5,
        "task": "classifier",
        **changes,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (even(18, confidence_level=0.95), "0.95 needs at least 19 rows; .* Received: 18 rows"),
        (even(98, confidence_level=0.99), "needs at least 99 rows"),
        (even(20, class_conditional=True), "needs at least 9 rows of a class; .* at most 4 rows"),
        (even(confidence_level=1), "`confidence_level` must be a number between 0 and 1"),
        (even(confidence_level=0), "`confidence_level` must be a number between 0 and 1"),
        (even(confidence_level="0.9"), "`confidence_level` must be a number between 0 and 1"),
        (even(confidence_level=math.nan), "`confidence_level` must be a number between 0 and 1"),
        (even(method="aps"), r"`method` must be one of \['lac'\]. Received: method='aps'"),
        (
            even(
                probabilities=np.full((20, 4, 2), 0.5, "f4"),
                targets=np.zeros((20, 4), int),
                class_conditional=True,
            ),
            "`class_conditional` needs one target per row",
        ),
        (
            even(
                probabilities=np.full((20, 4), 0.5, "f4"),
                targets=np.zeros((20, 4), int),
                task="multilabel",
            ),
            "must have a true label in some rows",
        ),
    ],
)
def test_refused(arguments, message):
    """What can't be promised is an error that says what would be possible."""
    with pytest.raises(ValueError, match=message):
        fit_prediction_sets(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "aps"}, "`method` must be one of"),
        ({"confidence_level": 1.5}, "`confidence_level` must be"),
        ({"class_conditional": 1}, "`class_conditional` must be True or False"),
        ({"threshold": 1.5}, "`threshold` must be finite and in"),
        ({"threshold": [0.1, 0.2]}, "`threshold` must be a tuple if `class_conditional`"),
        ({"rows": 0}, "`rows` must be a positive integer"),
        ({"coverage": None}, "`coverage` must be finite"),
        ({"mean_size": [1.0]}, "`mean_size` must be one number"),
        ({"fitted_on": 3}, "`fitted_on` must be a string"),
    ],
)
def test_damaged_json(change, message):
    """What a fit can't have made is refused."""
    stored = PredictionSets("lac", 0.9, False, 0.5, 100, 0.9, 1.0).as_json()
    with pytest.raises(ValueError, match=message):
        PredictionSets.from_json({**stored, **change})


def test_other_number_of_classes():
    """Sets by class need the classes that were fitted."""
    sets = PredictionSets("lac", 0.9, True, (0.5, 0.1), 100, 0.9, 1.0)
    with pytest.raises(ValueError, match="`probabilities` must have 2 values on the last axis"):
        sets.apply(np.ones((4, 3), "f4"))
