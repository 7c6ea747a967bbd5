"""Models, images and files that the tests of the command line share."""

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from kerasext.cli import main


@pytest.fixture
def kerasext(capsys):
    """Runs a command in this process; returns its exit code, stdout and stderr."""

    def run(*arguments):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as error:  # of argparse
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def save_model():
    """Saves a small model of rows or of images."""
    return _save_model


def _save_model(path, shape, *, units=4, activation="softmax"):
    keras.utils.set_random_seed(0)
    layers = [keras.Input(shape)]
    if len(shape) == 3:
        layers += [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    keras.Sequential([*layers, keras.layers.Dense(units, activation=activation)]).save(path)


@pytest.fixture
def model_path(tmp_path, save_model):
    """A saved classifier of rows of 8 features."""
    save_model(tmp_path / "model.keras", (8,))
    return tmp_path / "model.keras"


@pytest.fixture
def rows_path(tmp_path, rows):
    """The 70 rows in a .npy file."""
    np.save(tmp_path / "rows.npy", rows)
    return tmp_path / "rows.npy"


@pytest.fixture(scope="session")
def write_images():
    """Writes many images into a folder."""
    return _write_images


def _write_images(folder, count):
    """Parts of scikit-learn's two photographs, in formats and sizes that differ."""
    random = np.random.default_rng(0)
    photographs = load_sample_images().images
    for number in range(count):
        height, width = random.integers(40, 120, 2)
        top, left = random.integers(0, 300, 2)
        part = photographs[number % 2][top : top + height, left : left + width]
        below = folder / ("flowers" if number % 2 else "china/roofs")
        below.mkdir(parents=True, exist_ok=True)
        Image.fromarray(part).save(below / f"{number:05}.{('png', 'jpg', 'bmp')[number % 3]}")


@pytest.fixture
def folder(tmp_path, write_images):
    """A folder of 60 images."""
    write_images(tmp_path / "photos", 60)
    return tmp_path / "photos"
