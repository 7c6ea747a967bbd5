"""Whether the file paths of a data set are in the order of its rows."""

import keras
import numpy as np
import pytest

from kerasext.keras_internals.dataset_order import shuffles_its_file_paths


@pytest.fixture
def folder(tmp_path):
    """Nine images of each of two classes."""
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(9):
            keras.utils.save_img(tmp_path / name / f"{number}.png", np.full((4, 4, 3), number))
    return tmp_path


def load(folder, **options):
    """The images as Keras loads them."""
    return keras.utils.image_dataset_from_directory(
        folder, image_size=(4, 4), verbose=False, **options
    )


SPLIT = {"validation_split": 0.5, "subset": "validation"}


@pytest.mark.parametrize(
    ("options", "shuffles"),
    [
        ({}, True),
        ({"seed": 3}, True),
        ({"batch_size": None}, True),
        ({**SPLIT, "seed": 3}, True),
        ({"shuffle": False}, False),
        ({**SPLIT, "shuffle": False}, False),
    ],
)
def test_images_from_a_directory(options, shuffles, folder):
    """A data set that Keras shuffles is told from one that it does not, also after `map`."""
    dataset = load(folder, **options)
    paths = dataset.file_paths
    for data in (dataset, dataset.map(lambda x, _: x).prefetch(2)):
        for ids in (paths, list(paths), np.array(paths)):
            assert shuffles_its_file_paths(data, ids) is shuffles
        for ids in (sorted(paths)[:-1], None, "name", iter(paths), np.arange(18)):
            assert not shuffles_its_file_paths(data, ids)


def test_both_parts_of_a_split(folder):
    """Of two parts the one to validate with is in the order of its paths."""
    split = {"validation_split": 0.5, "subset": "both", "seed": 1}
    trains, validates = load(folder, **split)
    assert shuffles_its_file_paths(trains, trains.file_paths)
    assert not shuffles_its_file_paths(validates, validates.file_paths)


@pytest.mark.parametrize("data", [np.zeros((3, 2)), [1, 2], {"a": np.zeros(3)}, iter([])])
def test_other_data(data):
    """Nothing is known of other data, and nothing said."""
    assert not shuffles_its_file_paths(data, ["a", "b"])
