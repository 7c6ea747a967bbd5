"""Factor and bias of each class."""

import numpy as np
import pytest
from overconfident import logits_and_targets, softmax

from kerasext.calibration import arguments, fit_temperature, fit_vector_scaling


def centred(logits):
    """Logits minus the mean of their row."""
    return logits - logits.mean(axis=1, keepdims=True)


def loss(logits, targets, scale, bias):
    """The mean negative log likelihood."""
    p = softmax(scale * centred(logits) + bias)
    return -np.log(p[np.arange(len(p)), targets]).mean()


@pytest.mark.parametrize(("rows", "classes"), [(100, 2), (200, 3), (2000, 20)])
def test_least_loss(rows, classes):
    """The slopes of the loss are 0; it is convex, so that this is the optimum."""
    logits, targets = logits_and_targets(rows, classes)
    logits = logits + np.linspace(-1, 1, classes)
    scale, bias = fit_vector_scaling(logits, targets)
    rest = softmax(scale * centred(logits) + bias) - np.eye(classes)[targets]
    np.testing.assert_allclose((rest * centred(logits)).mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(rest.mean(axis=0), 0, atol=1e-9)
    assert bias.sum() == pytest.approx(0, abs=1e-12)
    temperature = fit_temperature(logits, targets)
    assert loss(logits, targets, scale, bias) < loss(logits, targets, 1 / temperature, 0)


def test_finds_what_was_done():
    """Factors and biases that made the logits wrong are found again."""
    logits, targets = logits_and_targets(50_000, 4, temperature=1)
    scale, bias = np.array([0.5, 1.0, 1.5, 0.8]), np.array([0.5, -0.5, 0.2, -0.2])
    made_wrong = (centred(logits) - bias) / scale
    # Vector scaling sees the logits centred, and so up to what is lost by that.
    made_wrong -= made_wrong.sum(axis=1, keepdims=True) / scale / (1 / scale).sum()
    found, found_bias = fit_vector_scaling(made_wrong, targets)
    np.testing.assert_allclose(found, scale, atol=0.05)
    np.testing.assert_allclose(found_bias, bias, atol=0.05)


def test_constants_do_not_matter():
    """Each row of logits may be off by a constant, as log probabilities are."""
    logits, targets = logits_and_targets(300, 3)
    moved = logits + np.linspace(-50, 50, 300)[:, None]
    for one, other in zip(
        fit_vector_scaling(moved, targets), fit_vector_scaling(logits, targets), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-8)


def test_blocks(monkeypatch):
    """The rows are read in blocks; their size changes nothing."""
    logits, targets = logits_and_targets(200, 3)
    whole = fit_vector_scaling(logits, targets)
    monkeypatch.setattr(arguments, "_BLOCK_NUMBERS", 3 * 7)
    np.testing.assert_allclose(fit_vector_scaling(logits, targets), whole, rtol=1e-9)


def test_a_class_that_never_occurs():
    """Its bias would fall without end; the classes are named."""
    logits, targets = logits_and_targets(300, 15)
    with pytest.raises(ValueError, match=r"rows of every class; .* none of class 4$"):
        fit_vector_scaling(logits[targets != 4], targets[targets != 4])
    with pytest.raises(ValueError, match=r"none of class 2, 3, .*, 11 and 3 more$"):
        fit_vector_scaling(logits[targets < 2], targets[targets < 2])


@pytest.mark.parametrize("rows", [60, 2000])
@pytest.mark.parametrize("size", [15.0, 1000.0])
def test_a_class_that_others_do_not_overlap(rows, size):
    """If one class is told without an error, its factor and bias would grow without end."""
    logits, targets = logits_and_targets(rows, 4, temperature=1)
    logits[:, 2] = np.where(targets == 2, size, -size)
    with pytest.raises(ValueError, match=r"classes that overlap; .* of class 2$"):
        fit_vector_scaling(logits, targets)


def test_classes_that_are_told_together():
    """No class is told from all others by its own logit, but biases make all rows right."""
    logits, _ = logits_and_targets(500, 3)
    targets = (logits + np.array([1, 0, -1])).argmax(axis=1)
    with pytest.raises(ValueError, match="classes that overlap"):
        fit_vector_scaling(logits, targets)


def test_a_class_whose_logit_speaks_against_it():
    """A factor that is not positive is no calibration."""
    logits, targets = logits_and_targets(2000, 4)
    logits[:, 1] *= -1
    with pytest.raises(ValueError, match=r"speak for their class; .* for class 1$"):
        fit_vector_scaling(logits, targets)


def test_all_right():
    """As for a temperature, some rows must be wrong."""
    logits, _ = logits_and_targets(100, 3)
    with pytest.raises(ValueError, match="only if some rows are wrong"):
        fit_vector_scaling(logits, logits.argmax(axis=1))
