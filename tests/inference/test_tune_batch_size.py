import gc
import weakref

import keras
import numpy as np
import pytest
import rich
from rich.console import Console

from kerasext.inference import tune_batch_size as tune
from kerasext.inference.batch_size_trials import Trial
from kerasext.inference.tune_batch_size import TunedBatchSize, largest_batch, remember, remembered


@pytest.fixture
def model():
    """One layer."""
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])


@pytest.fixture
def x():
    """2,100 rows of 8 features."""
    return np.zeros((2100, 8), "float32")


@pytest.fixture
def tuned():
    """A result that was not measured."""
    table = [Trial(32, 1000, 0.1, 0.2), Trial(128, 4000, 0.1, 0.02), Trial(512, 4100, 0.1, 0.02)]
    return TunedBatchSize(128, table)


def test_result(model, x):
    """The batch size is one of those in the table, whose sizes and rates grow from 32 on."""
    found = tune(model, x)
    sizes = [trial.batch_size for trial in found.table]
    assert sizes[:2] == [32, 128]
    assert found.batch_size in sizes
    assert max(sizes) <= len(x)
    best = max(trial.rows_per_second for trial in found.table)
    chosen = found.table[sizes.index(found.batch_size)]
    assert chosen.rows_per_second >= 0.95 * best


def test_bounds(model, x):
    """Neither larger sizes nor more time than asked for are spent."""
    assert [trial.batch_size for trial in tune(model, x, max_batch_size=100).table] == [32]
    assert [trial.batch_size for trial in tune(model, x, max_seconds=1e-9).table] == [32]


def test_the_job_remembers(model, x):
    """What was found is known for the model and rows of the shape, until the model goes."""
    found = tune(model, x)
    assert remembered(model, x[:5], 10**9) == found.batch_size
    assert remembered(model, {"a": x}, 1) == found.batch_size
    assert remembered(model, x[:, :4], 1) is None
    assert remembered(model, x.astype("float64"), 1) is None
    remember(model, x, 7, up_to=1000)
    assert [remembered(model, x, rows) for rows in (1000, 1001)] == [7, None]
    reference = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert reference() is None or remembered(reference(), x, 5) == 7


def test_table(tuned):
    """`rich.print` shows what was measured."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(tuned)
    shown = captured.get()
    for text in ("batch size", "rows/s", "10,000", "40,000", "0.20"):
        assert text in shown
    assert repr(tuned) == "<TunedBatchSize 128, of 3 sizes tried>"
    assert rich.get_console() is not None


def test_plot(tuned):
    """The rates are drawn on the axes that are given."""
    drawn = {}

    class Axes:
        def __getattr__(self, name):
            return lambda *args, **options: drawn.update({name: (args, options)})

    axes = Axes()
    assert tuned.plot(axes) is axes
    (sizes, values), _ = drawn["plot"]
    assert sizes == [32, 128, 512]
    assert values == [10_000, 40_000, 41_000]
    assert drawn["axvline"][0] == (128,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_batch_size": 0}, "max_batch_size=0"),
        ({"max_seconds": 0}, "max_seconds=0"),
        ({"x": np.zeros((127, 8), "f4")}, "at least 128 rows.*127 rows"),
        ({"x": np.zeros((0, 8), "f4")}, "at least 128 rows.*0 rows"),
        ({"x": (row for row in [1])}, "must be an array"),
    ],
    ids=["size", "seconds", "few", "none", "generator"],
)
def test_bad_input(model, x, arguments, message):
    """What can't be tuned with is refused with what was received."""
    arguments = {"x": x, **arguments}
    with pytest.raises(ValueError, match=message):
        tune(model, arguments.pop("x"), **arguments)


@pytest.mark.parametrize(
    ("row_shape", "rows"),
    [
        ((), 2**22),
        ((32,), 2**17),
        ((64, 64, 3), 341),
        ((224, 224, 3), 128),
        ((512, 512, 3), 40),
        ((2**24,), 0),
    ],
)
def test_largest_batch(row_shape, rows):
    """What is tried is bounded in bytes of input, for large images in rows."""
    assert largest_batch(np.broadcast_to(np.float32(0), (3, *row_shape))) == rows


@pytest.mark.parametrize("of_class", [True, False])
def test_own_predict(of_class):
    """A model with a `predict` of its own, which takes data and no batches of ours, is refused."""

    class Scaled(keras.Model):
        def predict(self, x, **kwargs):
            return super().predict(x / 255, **kwargs)

    inputs = keras.Input((8,))
    model = (Scaled if of_class else keras.Model)(inputs, keras.layers.Dense(2)(inputs))
    if not of_class:
        model.predict = len
    where = "of Scaled" if of_class else "set on the model itself"
    with pytest.raises(TypeError, match=f"time `model.predict.* with `predict` {where}"):
        tune(model, np.ones((200, 8), "float32"))
