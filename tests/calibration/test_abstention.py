"""The threshold on confidence, and whether its promise holds."""

import json
import math

import numpy as np
import pytest
from overconfident import noisy_digits

from kerasext.calibration import Abstention, binomial_upper_bound, fit_abstention, fit_calibration
from kerasext.calibration.abstention import THRESHOLDS

RISK, LEVEL, DRAWS = 0.05, 0.95, 400
MOST_BROKEN = 0.05 + 3 * math.sqrt(0.05 * 0.95 / DRAWS)


def promises(confidence, wrong, rows, draws=DRAWS):
    """Draws rows and fits them: how often the promise is broken, and which share is kept."""
    rng = np.random.default_rng(5)
    zeros = np.zeros(len(wrong), int)
    broken = kept = 0.0
    for _ in range(draws):
        some = rng.integers(0, len(wrong), rows)
        try:
            found = fit_abstention(
                *(wrong[some].astype(int), confidence[some], zeros[some]), task="classifier"
            )
        except ValueError:  # not shown with these rows
            continue
        given = ~found.apply(confidence)
        broken += wrong[given].mean() > RISK
        kept += given.mean()
    return broken / draws, kept / draws


def test_promise():
    """On a net like many it is broken in at most 5 % of draws, and a useful share is kept."""
    p, targets = noisy_digits()
    assert 0.7 < (p.argmax(axis=1) == targets).mean() < 0.8
    p = fit_calibration(p[:200], targets[:200], task="classifier").apply(p)[200:]
    broken, kept = promises(p.max(axis=1), p.argmax(axis=1) != targets[200:], 500)
    assert broken <= MOST_BROKEN
    assert kept >= 0.15


def test_promise_at_the_border():
    """Of rows that are wrong in just more than the risk, few draws claim the contrary."""
    wrong = np.arange(10_000) < 501
    confidence = np.random.default_rng(0).permutation(np.linspace(0.9, 1, 10_000)).astype("f4")
    broken, _ = promises(confidence, wrong, 500)
    assert 0 < broken <= MOST_BROKEN


def test_thresholds_are_fixed():
    """There are 8 per octave of `1 - confidence`, from the strictest on, as float32."""
    assert THRESHOLDS.dtype == np.float32
    assert len(THRESHOLDS) == 161
    assert THRESHOLDS[0] == 1 - 2.0**-20
    assert THRESHOLDS[-1] == 0
    assert (np.diff(THRESHOLDS) < 0).all()
    np.testing.assert_allclose(np.log2(1 - THRESHOLDS[8:64:8].astype("f8")), np.arange(-19, -12))


def test_by_definition():
    """It is the last threshold whose bound keeps to the risk, before the first that does not."""
    rng = np.random.default_rng(0)
    confidence = (1 - rng.beta(0.4, 2, 3000)).astype("f4")
    wrong = rng.uniform(size=3000) > confidence**0.7
    zeros = np.zeros(3000, int)
    found = fit_abstention(wrong.astype(int), confidence, zeros, task="classifier")
    first = next(n for n in range(11, 600) if binomial_upper_bound(10, n, 0.05) <= RISK)
    expected = None
    for threshold in THRESHOLDS:
        kept = confidence >= threshold
        if kept.sum() < first:  # at which ten errors may be
            continue
        if binomial_upper_bound(int(wrong[kept].sum()), int(kept.sum()), 0.05) > RISK:
            break
        expected = threshold
    assert found.threshold == expected
    kept = confidence >= expected
    assert found.coverage == kept.mean()
    assert found.error_rate_before == wrong.mean()
    assert found.error_rate_after == wrong[kept].mean()
    assert 0.2 < found.coverage < 0.9


def test_stops_at_the_first_failure():
    """What fails at a strict threshold is not saved by rows below it."""
    confidence = np.float32([0.999] * 500 + [0.9] * 5000)
    labels = np.zeros(5500, int)
    labels[:60] = 1
    assert binomial_upper_bound(60, 5500, 0.05) < RISK
    with pytest.raises(ValueError, match=r"No threshold shows risk 0\.05"):
        fit_abstention(labels, confidence, np.zeros(5500, int), task="classifier")


def test_one_error_at_the_top():
    """Of many rows a wrong one among the most confident does not end the sequence."""
    confidence = np.linspace(0.5, 1, 5000, dtype="f4")
    labels = np.zeros(5000, int)
    labels[-1] = labels[0] = 1
    found = fit_abstention(labels, confidence, np.zeros(5000, int), task="classifier")
    assert found.coverage == 1


def test_compares_as_float32():
    """Confidence of exactly the threshold is kept, in single and double precision."""
    border = THRESHOLDS[100]
    confidence = np.full(100, border)
    found = fit_abstention(np.zeros(100, int), confidence, np.zeros(100, int), task="binary")
    assert found.threshold == 0
    found = Abstention(float(border), 0.05, 0.95, 100, 1.0, 0.0, 0.0)
    below = np.nextafter(border, np.float32(0))
    for dtype in ("f4", "f8"):
        assert found.apply(np.array([border, below], dtype)).tolist() == [False, True]


@pytest.mark.parametrize(("errors", "passes"), [(0, True), (1, False)])
def test_fewest_rows(errors, passes):
    """59 rows without an error show a risk of 0.05; with one they do not."""
    labels = np.r_[np.ones(errors, int), np.zeros(59 - errors, int)]
    arguments = labels, np.full(59, 0.75, "f4"), np.zeros(59, int)
    if passes:
        assert fit_abstention(*arguments, task="classifier").coverage == 1
    else:
        with pytest.raises(ValueError, match=r"an error rate of 0\.01695 in 59 rows"):
            fit_abstention(*arguments, task="classifier")


def test_nan():
    """A row without a confidence abstains, and its missing label counts as an error before."""
    confidence = np.full(200, 0.9, "f4")
    labels = np.zeros(200, int)
    confidence[:50], labels[:50] = np.nan, -1
    found = fit_abstention(labels, confidence, np.zeros(200, int), task="classifier")
    assert (found.coverage, found.error_rate_before, found.error_rate_after) == (0.75, 0.25, 0)
    assert found.apply(confidence).tolist() == [True] * 50 + [False] * 150


def test_several_labels():
    """Each label has a threshold of its own, and the promise with it."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, (2000, 2)).astype("f4")
    labels = np.stack([np.zeros(2000), rng.uniform(size=2000) > confidence[:, 1] ** 0.2], 1)
    labels, zeros = labels.astype(int), np.zeros((2000, 2), int)
    found = fit_abstention(labels, confidence, zeros, task="multilabel")
    alone = fit_abstention(labels[:, 1], confidence[:, 1], zeros[:, 1], task="binary")
    assert found.threshold == (0, alone.threshold)
    assert found.coverage == (1, alone.coverage)
    assert alone.coverage < 1
    assert found.apply(confidence).shape == (2000, 2)
    assert "below confidence 0 to " in str(found)
    labels[:, 0] = 1
    with pytest.raises(ValueError, match="an error rate of label 0 of 1 in 2000 rows"):
        fit_abstention(labels, confidence, zeros, task="multilabel")


def test_text_and_json():
    """It prints what was fitted and comes back from JSON bit for bit."""
    arguments = np.zeros(100, int), np.full(100, 0.9, "f4"), np.zeros(100, int)
    found = fit_abstention(*arguments, task="classifier", risk=0.1, fitted_on="net")
    assert str(found) == (
        "abstains below confidence 0: risk 0.1 at confidence level 0.95, fitted on 100 rows\n"
        "keeps 1 of these rows, error rate 0 -> 0"
    )
    assert Abstention.from_json(json.loads(json.dumps(found.as_json()))) == found
    several = Abstention((0.25, 0.5), 0.1, 0.9, 7, (0.5, 1.0), (0.0, 0.1), (0.0, 0.0))
    assert Abstention.from_json(json.loads(json.dumps(several.as_json()))) == several


def rows(number=100, **changes):
    """Arguments of the fit on rows that are all right."""
    zeros = np.zeros(number, int)
    return {
        "labels": zeros,
        "confidence": np.full(number, 0.9, "f4"),
        "targets": zeros,
        "task": "classifier",
        **changes,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (rows(58), "needs at least 59 rows; .* Received: 58 rows"),
        (rows(risk=0.0), "`risk` must be a number between 0 and 1"),
        (rows(risk=True), "`risk` must be a number between 0 and 1"),
        (rows(confidence_level=1.0), "`confidence_level` must be a number between 0 and 1"),
        (rows(task="regressor"), "`task` must be one of"),
        (rows(task="multilabel"), "one label per row, or one of each kind"),
        (rows(confidence=np.full((100, 4), 0.9, "f4")), "positions of a row are not independent"),
        (rows(confidence=np.full(100, 0.9, "f2")), "`confidence` must be float32 or float64"),
        (rows(confidence=np.full(100, 1.2, "f4")), r"`confidence` must be in \[0, 1\]"),
        (rows(labels=np.zeros(99, int)), "`labels` must have the shape of `confidence`"),
        (rows(targets=np.zeros(99, int)), "`targets` must have the shape of `confidence`"),
        (rows(targets=np.zeros(100)), "`targets` must be class numbers of an integer dtype"),
    ],
)
def test_refused(arguments, message):
    """What can't be promised is an error that says what would be possible."""
    with pytest.raises(ValueError, match=message):
        fit_abstention(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"risk": 2}, "`risk` must be a number"),
        ({"threshold": -0.1}, "`threshold` must be finite and in"),
        ({"threshold": [0.1, 0.2]}, "`threshold` and `coverage` must both be one number"),
        ({"rows": 1.5}, "`rows` must be a positive integer"),
    ],
)
def test_damaged_json(change, message):
    """What a fit can't have made is refused."""
    stored = Abstention(0.5, 0.05, 0.95, 100, 1.0, 0.0, 0.0).as_json()
    with pytest.raises(ValueError, match=message):
        Abstention.from_json({**stored, **change})


def test_other_number_of_labels():
    """Several thresholds need the labels that were fitted."""
    found = Abstention((0.25, 0.5), 0.1, 0.9, 7, (0.5, 1.0), (0.0, 0.1), (0.0, 0.0))
    with pytest.raises(ValueError, match="`confidence` must have 2 values on the last axis"):
        found.apply(np.ones((4, 3), "f4"))
