"""Trains a classifier of handwritten digits, predicts into an HDF5 file and reads the file back.

    python examples/quickstart.py [digits.h5]

Needs scikit-learn for its 1,797 real digits of 8x8 pixels; takes seconds on a CPU.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierMixin


class DigitNet(ClassifierMixin, keras.Model):
    """A small convolutional network; the mixin adds labels and confidence to its `predict`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(32, 3, activation="relu")
        self.pool = keras.layers.MaxPooling2D()
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(64, activation="relu")
        self.classify = keras.layers.Dense(10, activation="softmax")

    def call(self, images):
        """Probabilities of the ten digits."""
        features = self.flatten(self.pool(self.conv(images)))
        return self.classify(self.dense(features))


def main(path: Path) -> None:
    """Trains, predicts the held-out digits into `path`, and says what the file holds."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    images = x.reshape(-1, 8, 8, 1).astype("float32") / 16
    train_images, test_images, train_digits, test_digits, _, test_ids = train_test_split(
        images, y, np.arange(len(y)), test_size=0.2, random_state=0
    )

    model = DigitNet(class_names=list("0123456789"))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(train_images, train_digits, epochs=20, verbose=0)

    writer = HDF5PredictionWriter(
        path,
        mode="w",
        accumulate=False,
        ids=test_ids,
        targets=test_digits,
        metadata={"data": "scikit-learn digits, test part"},
    )
    model.predict(test_images, callbacks=[writer], verbose=0)

    with PredictionFile(path) as predictions:
        print(predictions)
        labels = predictions["labels"][:]
        confidence = predictions["confidence"][:]
        names = predictions.class_names[labels]
        ids, digits = predictions["ids"][:], predictions["targets"][:]

    print("\nThe ten least confident:")
    print(f"{'id':>5} {'true':>5} {'label':>5} {'confidence':>10}")
    for row in np.argsort(confidence)[:10]:
        print(f"{ids[row]:>5} {digits[row]:>5} {names[row]:>5} {confidence[row]:>10.3f}")

    print(f"\nAccuracy: {np.mean(labels == digits):.4f}")
    print(f"File: {path.resolve()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "path", nargs="?", type=Path, default="digits.h5", help="file to write (%(default)s)"
    )
    main(parser.parse_args().path)
