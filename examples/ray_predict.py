"""Predicts rows of Parquet files on Ray into a folder of prediction files that read as one.

    pip install '.[ray]' scikit-learn
    python examples/ray_predict.py [FOLDER]

Starts a Ray of its own on this machine, with two actors; on a cluster `ray.init()` finds it, and
FOLDER is on storage that all nodes share. Most of its half a minute is the start of Ray and of
TensorFlow in each actor. Without FOLDER everything is removed at the end.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from sklearn.datasets import load_digits

from kerasext import PredictionFile
from kerasext.evaluation import evaluate
from kerasext.models import ClassifierModel
from kerasext.ray import HDF5Datasink, KerasPredictor

ACTORS = 2
FILES = 6


def train(path: Path, images: np.ndarray, digits: np.ndarray) -> None:
    """Saves a classifier of digits; a factory that returns a model would do as well."""
    layers = [keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    model = ClassifierModel.from_model(
        keras.Sequential(layers), from_logits=True, class_names=list("0123456789")
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    model.fit(images, digits, epochs=10, verbose=0)
    model.save(path)


def write_rows(folder: Path, images: np.ndarray, digits: np.ndarray) -> None:
    """Writes the rows as another team would: some files, a list for each image, ids of its own."""
    folder.mkdir()
    ids = np.array([f"digit-{number:05}" for number in range(len(images))])
    for number, part in enumerate(np.array_split(np.arange(len(images)), FILES)):
        table = pa.table({"id": ids[part], "image": list(images[part]), "digit": digits[part]})
        pq.write_table(table, folder / f"{number}.parquet")


def main(folder: Path) -> None:
    """Trains, predicts in two actors, and reads what they wrote."""
    keras.utils.set_random_seed(0)
    x, digits = load_digits(return_X_y=True)
    images = (x / 16).astype("float32")
    train(folder / "digits.keras", images[::2], digits[::2])
    write_rows(folder / "rows", images[1::2], digits[1::2])

    # Actors keep their CPUs: without others nothing could read and write, and the job would hang.
    ray.init("local", num_cpus=ACTORS + 2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_parquet(str(folder / "rows")).repartition(FILES)
    predictions = rows.map_batches(
        KerasPredictor,
        fn_constructor_args=(str(folder / "digits.keras"),),
        fn_constructor_kwargs={"x": "image", "keep_columns": ["id", "digit"]},
        batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=ACTORS),  # num_gpus=1 beside it for a GPU each
    )
    predictions.write_datasink(HDF5Datasink(str(folder / "predictions"), targets="digit"))
    ray.shutdown()

    index = folder / "predictions/index.h5"
    with PredictionFile(index) as file:
        print(file)
        labels, ids = file["labels"][:3], file["ids"][:3]
        print(f"\nFiles: {len(list(index.parent.glob('*.h5'))) - 1}, and {index.name} over them")
        print(f"The first rows: {dict(zip(ids.tolist(), file.class_names[labels], strict=True))}")
    print(f"Accuracy: {evaluate(index).accuracy:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a new folder for all files")
    chosen = parser.parse_args().folder
    if chosen is None:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
    else:
        chosen.mkdir()
        main(chosen)
