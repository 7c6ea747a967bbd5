"""A model with two heads: settings by head, and one group per head in the file.

    python examples/04_multi_head.py [heads.h5]

One head yields logits, the other probabilities; each is told apart by its name.
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


def main(path: Path) -> None:
    """Predicts which digit it is, and whether it is even or odd, into `path`."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    pixels = x.astype("float32") / 16
    train_pixels, test_pixels, train_digits, test_digits = train_test_split(
        pixels, y, test_size=0.2, random_state=0
    )

    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    model = ClassifierModel(
        inputs,
        {
            "digit": keras.layers.Dense(10, name="digit")(hidden),
            "parity": keras.layers.Dense(2, activation="softmax", name="parity")(hidden),
        },
        from_logits={"digit": True},
        class_names={"digit": list("0123456789"), "parity": ["even", "odd"]},
    )
    model.compile(
        optimizer="adam",
        loss={
            "digit": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "parity": "sparse_categorical_crossentropy",
        },
    )
    targets = {"digit": train_digits, "parity": train_digits % 2}
    model.fit(train_pixels, targets, epochs=60, verbose=0)

    writer = HDF5PredictionWriter(path, mode="w", accumulate=False)
    model.predict(test_pixels, callbacks=[writer], verbose=0)

    with PredictionFile(path) as predictions:
        print(predictions)
        digits, parities = predictions["digit/labels"][:], predictions["parity/labels"][:]
        digit_names = predictions.class_names["digit"][digits]
        parity_names = predictions.class_names["parity"][parities]

    for row in range(5):
        print(f"row {row}: {digit_names[row]} is {parity_names[row]}")
    digit_accuracy = np.mean(digits == test_digits)
    parity_accuracy = np.mean(parities == test_digits % 2)
    print(f"Accuracy: digit {digit_accuracy:.4f}, parity {parity_accuracy:.4f}")
    print(f"The heads agree on {np.mean(digits % 2 == parities):.1%} of the rows")
    if min(digit_accuracy, parity_accuracy) < 0.95:
        raise SystemExit("A head did not learn what it was told.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "heads.h5")
