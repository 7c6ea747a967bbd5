"""Labels and confidence as the mixin makes them, and by other operations, in the compiled step.

python benchmarks/top_k.py
"""

from collections.abc import Iterator

import keras
import numpy as np
from keras import ops
from measure import Figure, alternate, amount, machine, ratio, show

from kerasext.models import ClassifierMixin

RUNS, STEPS = amount(15, smallest=1), amount(50, smallest=1)
ROWS = amount(4096, smallest=64)


class Mixin(ClassifierMixin, keras.Model):
    """As it is, on a model that costs nothing."""

    def call(self, inputs):
        """Yields its input."""
        return inputs


class OnePass(Mixin):
    """Both from `top_k`."""

    def postprocess(self, y_pred):
        """Largest value and its index at once."""
        confidence, labels = ops.top_k(y_pred, 1)
        return outputs(y_pred, ops.squeeze(labels, -1), ops.squeeze(confidence, -1))


class TwoPasses(Mixin):
    """Each from an operation of its own."""

    def postprocess(self, y_pred):
        """Largest value, then its index."""
        return outputs(y_pred, ops.argmax(y_pred, axis=-1), ops.max(y_pred, axis=-1))


def outputs(y_pred, labels, confidence):
    """The outputs of the mixin."""
    unknown = ops.any(ops.isnan(y_pred), axis=-1)
    return {
        "probabilities": y_pred,
        "labels": ops.where(unknown, -1, ops.cast(labels, "int32")),
        "confidence": ops.where(unknown, float("nan"), confidence),
    }


def rows_with_ties(classes: int) -> np.ndarray:
    """Rows with equal numbers in every other one, and with some NaN and infinities."""
    rows = np.random.default_rng(0).random((ROWS, classes), dtype=np.float32)
    rows[::2] = rows[::2].round(1)
    rows[:3] = 0
    rows[3, 0], rows[4, 1], rows[5, -1], rows[6] = np.nan, np.nan, np.nan, np.nan
    rows[7, [0, 1]] = np.nan, np.inf
    rows[8, [1, 3]], rows[9] = np.inf, -np.inf
    return rows


def wrong_rows(model: keras.Model, rows: np.ndarray) -> int:
    """Rows of which the model does not say what NumPy does."""
    said = model.predict_on_batch(rows)
    unknown = np.isnan(rows).any(axis=-1)
    labels = np.where(unknown, -1, rows.argmax(axis=-1))
    confidence = np.where(unknown, np.nan, rows.max(axis=-1))
    is_same = np.isclose(said["confidence"], confidence, rtol=0, atol=0, equal_nan=True)
    return int(np.sum(~is_same | (said["labels"] != labels)))


def figures() -> Iterator[Figure]:
    """Measures."""
    for classes in (10, 1000):
        rows = rows_with_ties(classes)
        for is_jitted in (False, True):
            case = f"{ROWS:,} rows of {classes} classes{', XLA' if is_jitted else ''}"
            models = {made.__name__: made() for made in (Mixin, OnePass, TwoPasses)}
            for name, model in models.items():
                model.compile(jit_compile=is_jitted)
                yield Figure(f"{case}, {name}: wrong", wrong_rows(model, rows), "rows", "<= 0")
            seconds = alternate(
                RUNS,
                **{name: lambda m=model, x=rows: steps(m, x) for name, model in models.items()},
            )
            for name in (OnePass.__name__, TwoPasses.__name__):
                faster = ratio(seconds, Mixin.__name__, name)
                yield Figure(f"{case}, {name}: speed", faster, "times the mixin's", runs=seconds)


def steps(model: keras.Model, rows: np.ndarray) -> None:
    """Steps of `predict`, without what Keras does around them."""
    batch = ops.convert_to_tensor(rows)
    for _ in range(STEPS):
        model.predict_function([(batch,)])


if __name__ == "__main__":
    print(machine())
    show(figures())
