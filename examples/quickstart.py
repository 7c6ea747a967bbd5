"""Trains a classifier of handwritten digits, predicts into an HDF5 file and reads the file back.

    python examples/quickstart.py [digits.h5]

Saves the model and the images beside the file, as digits.keras and digits.npy, for the command
line. Needs scikit-learn for its 1,797 real digits of 8x8 pixels; takes seconds on a CPU.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Drops what is written to stderr: TensorFlow writes a page of notes while it loads."""
    stderr = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


with silent_stderr():
    import keras

    from kerasext import HDF5PredictionWriter, PredictionFile
    from kerasext.models import ClassifierModel

    keras.ops.zeros(1)  # here TensorFlow looks for a GPU


def make_model() -> ClassifierModel:
    """A small convolutional network, whose `predict` returns labels and confidence, too."""
    images = keras.Input((8, 8, 1))
    features = keras.layers.Conv2D(32, 3, activation="relu")(images)
    features = keras.layers.Flatten()(keras.layers.MaxPooling2D()(features))
    features = keras.layers.Dense(64, activation="relu")(features)
    probabilities = keras.layers.Dense(10, activation="softmax")(features)
    return ClassifierModel(images, probabilities, class_names=list("0123456789"))


def main(path: Path) -> None:
    """Trains, predicts the held-out digits into `path`, and prints what the file holds."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    images = x.reshape(-1, 8, 8, 1).astype("float32") / 16
    train_images, test_images, train_digits, test_digits, _, test_ids = train_test_split(
        images, y, np.arange(len(y)), test_size=0.2, random_state=0
    )

    model = make_model()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(train_images, train_digits, epochs=20, verbose=0)
    model.save(path.with_suffix(".keras"))
    np.save(path.with_suffix(".npy"), test_images)

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
    print(f"\nTry: kerasext predict {path.stem}.keras {path.stem}.npy -o again.h5")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "path", nargs="?", type=Path, default="digits.h5", help="file to write (%(default)s)"
    )
    main(parser.parse_args().path)
