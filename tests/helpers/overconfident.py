"""Predictions that are too sure of themselves, as those of overtrained nets are."""

import functools
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier


def softmax(logits):
    """Probabilities on the last axis, in the dtype of the logits."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def logits_and_targets(rows, classes, temperature=3.0, seed=0):
    """Logits `temperature` times too large, and targets drawn from what they should be."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(rows, classes))
    targets = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
    return temperature * logits, targets


def yes_or_no(rows, scale=0.4, bias=0.7, seed=0):
    """Logits, and targets drawn from `sigmoid(scale * logits + bias)`."""
    rng = np.random.default_rng(seed)
    logits = 4 * rng.normal(size=rows)
    return logits, (rng.logistic(size=rows) < scale * logits + bias).astype(int)


@functools.cache
def noisy_digits():
    """Probabilities and targets of 1,297 noisy digits, by a net that knows 500 others by heart."""
    images, targets = load_digits(return_X_y=True)
    images = images / 16 + np.random.default_rng(0).normal(scale=0.25, size=images.shape)
    net = MLPClassifier(64, alpha=0, learning_rate_init=0.01, random_state=0)
    net.set_params(max_iter=300, n_iter_no_change=300, tol=0)
    with warnings.catch_warnings(action="ignore"):  # it is to learn them by heart
        net.fit(images[:500], targets[:500])
    return net.predict_proba(images[500:]).astype("f4"), targets[500:]
