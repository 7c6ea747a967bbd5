"""A plain Keras model that is already trained gets labels, confidence and class names.

    python examples/01_wrap_trained_model.py [predictions.h5]

Nothing is trained again and no weight is copied: the dressed model shares those of the plain one.
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def main(folder: Path, path: Path) -> None:
    """Trains and saves a plain model in `folder`, then loads, dresses and predicts into `path`."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    pixels = x.astype("float32") / 16
    train_pixels, test_pixels, train_digits, test_digits = train_test_split(
        pixels, y, test_size=0.2, random_state=0
    )
    train_plain_model(train_pixels, train_digits).save(folder / "digits.keras")

    plain = keras.saving.load_model(folder / "digits.keras")
    model = ClassifierModel.from_model(plain, from_logits=True, class_names=NAMES)

    writer = HDF5PredictionWriter(path, mode="w", accumulate=False)
    model.predict(test_pixels, callbacks=[writer], verbose=0)

    with PredictionFile(path) as predictions:
        for name, output in predictions.items():
            print(f"{name}: {output.shape} {output.dtype}")
        labels = predictions["labels"][:]
        print("First five:", *predictions.class_names[labels[:5]])
        print("They are:  ", *(NAMES[digit] for digit in test_digits[:5]))

    accuracy = np.mean(labels == test_digits)
    print(f"Accuracy: {accuracy:.4f}")
    if not all(ours is its for ours, its in zip(model.weights, plain.weights, strict=True)):
        raise SystemExit("The dressed model has weights of its own.")
    logits = plain.predict(test_pixels, verbose=0)
    if not np.array_equal(labels, logits.argmax(axis=-1)) or accuracy < 0.95:
        raise SystemExit("The labels are not what the plain model says.")


def train_plain_model(pixels: np.ndarray, digits: np.ndarray) -> keras.Model:
    """A functional model that ends in logits and knows nothing of kerasext."""
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(10)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    model.fit(pixels, digits, epochs=30, verbose=0)
    return model


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        main(folder, Path(sys.argv[1]) if len(sys.argv) > 1 else folder / "predictions.h5")
