"""Confidence that means what it says: calibration, prediction sets and abstention, by one file.

    python examples/05_confidence.py [digits.h5]

A network learns 500 noisy digits by heart and is far too sure of itself. 400 other digits tell how
much; the rest shows what is kept of each promise.
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

from kerasext import predict_to_hdf5
from kerasext.evaluation import Evaluation, evaluate
from kerasext.models import ClassifierModel


def overtrained(pixels: np.ndarray, digits: np.ndarray) -> ClassifierModel:
    """A network that knows its training rows by heart."""
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(128, activation="relu")(inputs)
    probabilities = keras.layers.Dense(10, activation="softmax")(hidden)
    model = ClassifierModel(inputs, probabilities, class_names=list("0123456789"))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(pixels, digits, epochs=150, verbose=0)
    return model


def show(title: str, result: Evaluation) -> None:
    """Prints how sure the model is, and how often it is right."""
    curve = result.calibration_curve
    confidence = np.nansum(curve.confidence * curve.counts) / curve.counts.sum()
    print(
        f"{title}: mean confidence {confidence:.3f}, accuracy {result.accuracy:.3f}, "
        f"calibration error {result.expected_calibration_error:.3f}"
    )


def main(path: Path) -> None:
    """Trains, fits on the validation rows, and evaluates the test rows in `path`."""
    keras.utils.set_random_seed(0)
    x, digits = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).normal(scale=0.25, size=x.shape)
    pixels = (x / 16 + noise).astype("float32")
    # For each purpose rows of its own, at random.
    order = np.random.default_rng(1).permutation(len(pixels))
    train, validation, test = np.split(order, [500, 900])

    model = overtrained(pixels[train], digits[train])
    with predict_to_hdf5(
        model, pixels[test], path, mode="w", targets=digits[test], verbose=0
    ) as predictions:
        show("Before", evaluate(predictions))

    print(model.calibrate(pixels[validation], digits[validation]))
    print(model.conformalize(pixels[validation], digits[validation], confidence_level=0.9))
    print(model.abstain(pixels[validation], digits[validation], risk=0.1))
    with predict_to_hdf5(
        model, pixels[test], path, mode="w", targets=digits[test], verbose=0
    ) as predictions:
        result = evaluate(predictions)
        sets, abstained = predictions["prediction_set"][:], predictions["abstained"][:]
        shown = [sets[row].nonzero()[0].tolist() for row in range(5)]
    show("After", result)

    assert result.prediction_sets is not None
    assert result.abstention is not None
    low, high = result.prediction_sets.expected_interval or (0, 1)
    print(f"Sets of the first rows: {shown}, of {sets.shape}")
    print(
        f"{result.prediction_sets.coverage:.3f} of the sets hold the digit (0.9 promised, "
        f"{low:.3f} to {high:.3f} by chance); their mean size is "
        f"{result.prediction_sets.mean_size:.2f}"
    )
    print(
        f"Without the {abstained.mean():.0%} that are abstained {result.abstention.error_rate:.3f} "
        "of the labels are wrong (at most 0.1 promised)"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "digits.h5")
