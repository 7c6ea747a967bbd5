"""How results are stored."""

import math
from dataclasses import FrozenInstanceError

import pytest

from kerasext.calibration import Abstention, PredictionSets, ThresholdChoice
from kerasext.calibration.result import shown

SETS = PredictionSets("lac", 0.9, True, (0.5, 0.1), 100, 0.9, 1.0)


def test_plain_types():
    """The dict has strings, numbers, bools and lists, and no dict, which would look like heads."""
    stored = SETS.as_json()
    assert stored["threshold"] == [0.5, 0.1]
    assert stored["class_conditional"] is True
    assert {type(value) for value in stored.values()} == {str, float, bool, list, int}


def test_frozen():
    """A result does not change."""
    with pytest.raises(FrozenInstanceError):
        SETS.rows = 3


def test_missing_and_unknown_keys():
    """Keys that are missing or unknown are named; those with a default may be missing."""
    stored = SETS.as_json()
    del stored["fitted_on"]
    assert PredictionSets.from_json(stored) == SETS
    del stored["rows"]
    with pytest.raises(ValueError, match=r"missing=\['rows'\], unknown=\['risk'\]"):
        PredictionSets.from_json({**stored, "risk": 0.1})


@pytest.mark.parametrize("value", [None, 3, "lac", ["lac"]])
def test_no_dict(value):
    """Anything but a dict is an error."""
    with pytest.raises(ValueError, match="A PredictionSets must be a dict"):
        PredictionSets.from_json(value)


@pytest.mark.parametrize("threshold", [(), [[0.5]], {"a": 0.5}, "0.5", True, None])
def test_numbers(threshold):
    """A field of numbers takes a number or a list of them."""
    stored = {**SETS.as_json(), "threshold": threshold}
    with pytest.raises(ValueError, match="`threshold` must be finite and in"):
        PredictionSets.from_json(stored)


def test_nan():
    """Only the values of a threshold's metric may be NaN, which is stored as None."""
    choice = ThresholdChoice((0.5,), "f1", 3, (math.nan,), (math.nan,))
    assert choice.as_json()["value_after"] == [None]
    assert choice.labels_without_fit == (0,)
    assert "f1 nan -> nan" in str(choice)
    with pytest.raises(ValueError, match="`coverage` must be finite"):
        Abstention(0.5, 0.1, 0.9, 5, math.nan, 0.0, 0.0)


def test_shown():
    """Several numbers are shown as their range."""
    assert shown(1 / 3) == "0.3333"
    assert shown((1.0, 0.25, math.nan)) == "0.25 to 1"
    assert shown((0.5, 0.5)) == "0.5"
