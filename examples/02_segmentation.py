"""Classes of pixels: masks stored in one byte per pixel, read image by image.

    python examples/02_segmentation.py [masks.h5]

Any axes between the rows and the classes work alike: pixels here, tokens or time steps elsewhere.
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel


def main(path: Path) -> None:
    """Segments noisy scans of handwritten digits into background, edge and stroke."""
    keras.utils.set_random_seed(0)
    digits = load_digits().images
    images = digits[..., np.newaxis].astype("float32") / 16
    images += np.random.default_rng(0).normal(scale=0.1, size=images.shape)
    masks = np.digitize(digits, [1, 10])  # ink goes from 0 to 16
    train_images, test_images = images[:1400], images[1400:]
    train_masks, test_masks = masks[:1400], masks[1400:]

    inputs = keras.Input((None, None, 1))
    features = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    logits = keras.layers.Dense(3)(features)
    names = ["background", "edge", "stroke"]
    model = ClassifierModel(inputs, logits, from_logits=True, class_names=names)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
    model.fit(train_images, train_masks, epochs=20, verbose=0)

    dtypes = {"labels": "uint8", "probabilities": "float16"}
    writer = HDF5PredictionWriter(path, mode="w", accumulate=False, dtypes=dtypes)
    model.predict(test_images, callbacks=[writer], verbose=0)

    counts, confidences = np.zeros(3), np.zeros(3)
    with PredictionFile(path) as predictions:
        print(predictions)
        first_mask = predictions["labels"][0]  # an output is read when it is indexed
        for batch in predictions.iter_batches(100):
            labels, confidence = batch["labels"].ravel(), batch["confidence"].ravel()
            counts += np.bincount(labels, minlength=3)
            confidences += np.bincount(labels, weights=confidence, minlength=3)
        names = list(predictions.class_names)
        accuracy = np.mean(predictions["labels"][:] == test_masks)
        stored = predictions["labels"].dtype, predictions["probabilities"].dtype

    print(f"\nThe first mask, of shape {first_mask.shape}:")
    for line in first_mask:
        print("".join(" .#"[label] for label in line))
    for name, count, confidence in zip(names, counts, confidences, strict=True):
        print(f"{name}: {count:.0f} pixels, mean confidence {confidence / count:.3f}")
    print(f"Accuracy per pixel: {accuracy:.4f}")
    if stored != ("uint8", "float16") or counts.sum() != test_masks.size or accuracy < 0.9:
        raise SystemExit("The file does not hold good masks of the dtypes asked for.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "masks.h5")
