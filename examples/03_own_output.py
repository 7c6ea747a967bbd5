"""Outputs of your own beside the labels, and a file that keeps only what is needed.

    python examples/03_own_output.py [uncertain.h5]

`postprocess` runs inside the compiled predict step; what it returns is what `predict` returns.
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierMixin


class UncertainDigitNet(ClassifierMixin, keras.Model):
    """Says how unsure it is of each digit, and which other digit it might be."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(64, activation="relu")
        self.classify = keras.layers.Dense(10, activation="softmax")

    def call(self, pixels):
        """Probabilities of the ten digits."""
        return self.classify(self.hidden(pixels))

    def postprocess(self, y_pred):
        """Adds entropy in nats, margin between the best two, and the second best."""
        outputs = super().postprocess(y_pred)
        probabilities = outputs["probabilities"]
        log_probabilities = ops.log(ops.maximum(probabilities, keras.config.epsilon()))
        best, digits = ops.top_k(probabilities, k=2)
        outputs["entropy"] = -ops.sum(probabilities * log_probabilities, axis=-1)
        outputs["margin"] = best[:, 0] - best[:, 1]
        outputs["second"] = {"labels": digits[:, 1], "confidence": best[:, 1]}
        return outputs


def main(path: Path) -> None:
    """Predicts held-out digits into `path` and looks at those with the highest entropy."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    pixels = x.astype("float32") / 16
    train_pixels, test_pixels, train_digits, test_digits = train_test_split(
        pixels, y, test_size=0.2, random_state=0
    )
    model = UncertainDigitNet(class_names=list("0123456789"))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(train_pixels, train_digits, epochs=30, verbose=0)

    kept = ["labels", "entropy", "margin", "second"]  # "second" is a group of two
    writer = HDF5PredictionWriter(path, mode="w", accumulate=False, outputs=kept)
    model.predict(test_pixels, callbacks=[writer], verbose=0)

    with PredictionFile(path) as predictions:
        print(predictions)
        entropy, labels = predictions["entropy"][:], predictions["labels"][:]
        rows = np.argsort(-entropy)[:36]  # a tenth of them
        for row in rows[:5]:
            other, margin = predictions["second/labels"][row], predictions["margin"][row]
            print(f"row {row}: {entropy[row]:.2f} nats, {labels[row]} over {other} by {margin:.2f}")

    wrong = labels != test_digits
    print(f"{wrong[rows].sum()} of {wrong.sum()} errors are in the tenth of highest entropy")
    if entropy.min() < 0 or entropy.max() > np.log(10) or wrong[rows].mean() <= wrong.mean():
        raise SystemExit("The entropy does not say where the model is unsure.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "uncertain.h5")
