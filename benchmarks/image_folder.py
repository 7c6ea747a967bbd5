"""Folders of images: `ImageFolder` against `keras.utils.image_dataset_from_directory`.

    python benchmarks/image_folder.py

The images are JPEGs that the script makes. Each is read from the memory of the system, not from the
disk. The data set of Keras prefetches. Once both are read to the end, and once both feed a whole
job, which stores probabilities, labels, confidence and ids: `predict_to_hdf5` of ours; `predict`
and writes with h5py of the peer's.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers
from measure import Figure, alternate, amount, machine, ratio, show
from PIL import Image

from kerasext.inference import ImageFolder, predict_to_hdf5
from kerasext.models import ClassifierModel

RUNS = amount(9, smallest=1)
SMALL_IMAGES, LARGE_IMAGES = amount(4000, smallest=40), amount(1000, smallest=20)
BATCH_SIZE = 128
SIZE = (64, 64)


def write_images(folder: Path, count: int, side: int) -> None:
    """Square JPEGs of some structure and some noise, in a folder for each of two classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3)).astype(np.uint8))
        pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
        noisy = (pixels + random.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
        below = folder / ("cat" if number % 2 else "dog")
        below.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(below / f"{number:06}.jpg", quality=90)


def cnn() -> keras.Model:
    """A small convolutional network of 10 classes, which says nothing but probabilities."""
    inputs = outputs = keras.Input((*SIZE, 3))
    for layer in (
        layers.Rescaling(1 / 255),
        layers.Conv2D(16, 3, strides=2, activation="relu"),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10, activation="softmax"),
    ):
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def dataset_of(folder: Path):
    """The images as people read them with Keras."""
    return keras.utils.image_dataset_from_directory(
        folder, image_size=SIZE, batch_size=BATCH_SIZE, shuffle=False, verbose=False
    )


def read_with_keras(folder: Path) -> Callable[[], None]:
    """Reads all batches."""
    dataset = dataset_of(folder).prefetch(2)

    def run():
        for _ in dataset:
            pass

    return run


def read(folder: Path) -> Callable[[], None]:
    """The same with ours."""
    images = ImageFolder(folder, image_size=SIZE)

    def run():
        for start in range(0, len(images), BATCH_SIZE):
            images[start : start + BATCH_SIZE]

    return run


def job_with_keras(model: keras.Model, folder: Path, path: Path) -> Callable[[], None]:
    """What people write by hand, listing the folder included."""

    def run():
        dataset = dataset_of(folder)
        names = dataset.file_paths
        probabilities = model.predict(dataset.prefetch(2), verbose=0)
        with h5py.File(path, "w") as file:
            file["probabilities"] = probabilities
            file["labels"] = probabilities.argmax(axis=-1)
            file["confidence"] = probabilities.max(axis=-1)
            file["ids"] = names

    return run


def job(model: keras.Model, folder: Path, path: Path) -> Callable[[], None]:
    """The same with ours."""
    classifier = ClassifierModel.from_model(model)

    def run():
        images = ImageFolder(folder, image_size=SIZE)
        options = {"batch_size": BATCH_SIZE, "mode": "w", "verbose": 0}
        predict_to_hdf5(classifier, images, path, ids=images.paths, **options).close()

    return run


def figures() -> Iterator[Figure]:
    """Measures."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        path, small, large = base / "out.h5", base / "small", base / "large"
        write_images(small, SMALL_IMAGES, 64)
        write_images(large, LARGE_IMAGES, 256)
        model = cnn()
        for case, variants, target in (
            ("64 x 64, read alone", (read_with_keras(small), read(small)), ">= 1.0"),
            (
                "64 x 64, whole job",
                (job_with_keras(model, small, path), job(model, small, path)),
                ">= 1.0",
            ),
            ("256 x 256 to 64 x 64, read alone", (read_with_keras(large), read(large)), ""),
        ):
            seconds = alternate(RUNS, keras=variants[0], ours=variants[1])
            faster = ratio(seconds, "keras", "ours")
            yield Figure(f"JPEGs of {case}: rate", faster, "times Keras's", target, seconds)
            images = LARGE_IMAGES if case.startswith("256") else SMALL_IMAGES
            rate = images / np.median(seconds["ours"])
            yield Figure(f"JPEGs of {case}: rate", rate, "images/s")


if __name__ == "__main__":
    print(machine())
    show(figures())
