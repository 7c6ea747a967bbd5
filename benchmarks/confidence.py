"""What prediction sets and abstention cost in a predict with the writer: 1,000 classes, batch 256.

python benchmarks/confidence.py
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from measure import Figure, alternate, amount, machine, ratio, show

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

ROWS, CLASSES, RUNS = (
    amount(20_480, smallest=512),
    amount(1000, smallest=10),
    amount(21, smallest=1),
)


def make_models() -> tuple[dict[str, ClassifierModel], np.ndarray]:
    """The same model without anything, calibrated, and with sets and abstention; and its rows."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(ROWS, 64)).astype("float32")
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(256, activation="relu")(inputs)
    initializer = keras.initializers.RandomNormal(stddev=2)
    logits = keras.layers.Dense(CLASSES, kernel_initializer=initializer)
    plain = ClassifierModel(inputs, logits(hidden), from_logits=True)

    some = rows[:500]
    # Drawn from what half the logits say: the model is too sure, as trained ones are.
    p = np.float64(plain.predict(some, verbose=0)["probabilities"]) ** 0.5
    cumulated = np.cumsum(p / p.sum(axis=-1, keepdims=True), axis=-1)
    targets = (cumulated < random.random((500, 1))).sum(axis=-1).clip(0, CLASSES - 1)
    calibrated = ClassifierModel.from_model(plain)
    calibrated.calibrate(some, targets)
    complete = ClassifierModel.from_model(calibrated)
    complete.conformalize(some, targets)
    complete.abstain(some, targets, risk=0.5)
    return {"plain": plain, "calibrated": calibrated, "complete": complete}, rows


def figures() -> Iterator[Figure]:
    """Measures."""
    models, rows = make_models()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.h5"

        def predict(model: ClassifierModel) -> None:
            writer = HDF5PredictionWriter(path, mode="w", accumulate=False)
            model.predict(rows, batch_size=256, verbose=0, callbacks=[writer])

        seconds = alternate(
            RUNS, **{name: lambda m=model: predict(m) for name, model in models.items()}
        )
    sizes = models["complete"].predict(rows[:1024], verbose=0)["set_size"]
    yield Figure("mean size of the sets", float(sizes.mean()), "classes")
    case = f"{ROWS:,} rows of {CLASSES:,} classes, batch 256, with the writer"
    value = ratio(seconds, "calibrated", "plain")
    yield Figure(f"{case}: with a temperature", value, "times the time without", runs=seconds)
    value = ratio(seconds, "complete", "calibrated")
    name = f"{case}: with sets and abstention"
    yield Figure(name, value, "times the time without", "<= 1.1", runs=seconds)


if __name__ == "__main__":
    print(machine())
    show(figures())
