"""Wherever `predict` with a writer fails, whatever is called next is right."""

import importlib
import itertools

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel
from kerasext.storage import PredictionFileWriter


class Fails(Exception):
    pass


class Fuse(keras.layers.Layer):
    """Passes its input on, but for the step in which it was told to fail, also when compiled."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps_left = None
        self.error = None

    def blow(self, steps, error):
        """Lets the step after so many others fail."""
        self.steps_left, self.error = steps, error

    def _burn(self, x):
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.steps_left = None
                raise self.error
        return np.asarray(x)

    def call(self, x):
        backend = importlib.import_module(keras.backend.backend())
        if isinstance(x, keras.KerasTensor):
            return x
        if backend.__name__ == "tensorflow":
            return backend.ensure_shape(backend.numpy_function(self._burn, [x], x.dtype), x.shape)
        if backend.__name__ == "jax":
            return backend.pure_callback(self._burn, backend.ShapeDtypeStruct(x.shape, x.dtype), x)
        self._burn(np.zeros(()))
        return x


@pytest.fixture(scope="module")
def model():
    """A compiled classifier that has state of every kind: weights, statistics and a seed.

    All faults meet the same model, because compiling one for each takes most of the time.
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(inputs))
    x = keras.layers.Dense(4, activation="softmax")(Fuse(name="fuse")(x))
    model = ClassifierModel(inputs, x)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.optimizer.learning_rate = 0.0
    return model


class Raises(keras.callbacks.Callback):
    def __init__(self, hook, error, batch=2):
        super().__init__()
        self.error, self.batch = error, batch
        setattr(self, hook, self._fail)

    def _fail(self, batch=None, logs=None):
        if not isinstance(batch, int) or batch == self.batch:
            raise self.error


def batches(rows, *, fails_at, error):
    """The rows in batches of 23, but an error in place of one of them."""
    for start in range(0, len(rows), 23):
        if start == 23 * fails_at:
            raise error
        yield (rows[start : start + 23],)


class BrokenRows:
    """An array on a disk that can't be read from some batch on."""

    def __init__(self, rows, *, fails_at, error):
        self.rows, self.first_bad, self.error = rows, 23 * fails_at, error
        self.shape, self.dtype = rows.shape, rows.dtype

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype)

    def __getitem__(self, key):
        if key.stop > self.first_bad:
            raise self.error
        return self.rows[key]


class WithACallback:
    """Keras's `predict` with a writer, which stands among the callbacks where `...` does."""

    broken = staticmethod(batches)

    def __init__(self, model, path):
        self.model = model
        self.writer = HDF5PredictionWriter(path, mode="w", accumulate=False)

    def __call__(self, x, *callbacks):
        with self.writer:
            self.model.predict(
                x,
                batch_size=23 if isinstance(x, np.ndarray) else None,
                verbose=0,
                callbacks=[self.writer if each is ... else each for each in callbacks or [...]],
            )


class AsAJob(WithACallback):
    """A loop of kerasext's own."""

    broken = BrokenRows

    def __call__(self, x, *callbacks):
        others = [each for each in callbacks if each is not ...]
        predict_to_hdf5(
            self.model,
            x,
            self.writer.path,
            mode="w",
            batch_size=23,
            verbose=0,
            callbacks=others,
        ).close()


def in_the_model(steps, error):
    """Lets a step of the model fail."""

    def fail(predict, model, rows):
        model.get_layer("fuse").blow(steps, error)
        predict(rows)

    return fail


def in_the_data(batch, error):
    """Lets a batch be no batch."""
    return lambda predict, _, rows: predict(predict.broken(rows, fails_at=batch, error=error))


def in_a_callback(hook, batch, error, *, before):
    """Lets another callback fail, before the writer in the list or after it."""

    def fail(predict, model, rows):
        other = Raises(hook, error, batch)
        predict(rows, *([other, ...] if before else [..., other]))

    return fail


def in_the_writer(predict, model, rows):
    """Lets the thread that writes fail, as on a full disk."""
    appended = PredictionFileWriter.append
    calls = itertools.count()

    def append(self, step, **options):
        if next(calls):
            raise OSError(28, "No space left on device")
        appended(self, step, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PredictionFileWriter, "append", append)
        predict(rows)


FAULTS = {
    "in the first step": in_the_model(0, Fails()),
    "in the third step": in_the_model(2, Fails()),
    "in the first batch": in_the_data(0, Fails()),
    "in the third batch": in_the_data(2, Fails()),
    "Ctrl-C in the data": in_the_data(2, KeyboardInterrupt()),
    "no rows": lambda predict, _, rows: predict(rows[:0]),
    "other rows": lambda predict, _, rows: predict(rows[:, :3]),
    "in the writer": in_the_writer,
} | {
    f"{error.__name__} in {hook} {batch}, {'before' if before else 'after'} ours": in_a_callback(
        hook, batch, error(), before=before
    )
    for error in (Fails, KeyboardInterrupt)
    for hook, batch in (
        ("on_predict_begin", None),
        ("on_predict_batch_begin", 2),
        ("on_predict_batch_end", 2),
        ("on_predict_end", None),
    )
    for before in (True, False)
    if error is Fails or (batch == 2 and not before)
}


def predict_again(model, rows, writer):
    """Plain."""
    return model.predict(rows, batch_size=23, verbose=0)


def predict_on_batch(model, rows, writer):
    """Batch by batch."""
    parts = [model.predict_on_batch(rows[start : start + 23]) for start in range(0, 70, 23)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def same_writer(model, rows, writer):
    """With the callback that has seen the fault."""
    assert model.predict(rows, batch_size=23, verbose=0, callbacks=[writer]) == {}
    with h5py.File(writer.path) as file:
        assert file["_kerasext/record"][()]["complete"]
        return {name: file[name][()] for name in file if name != "_kerasext"}


def resume(model, rows, writer):
    """What the fault has left, gone on with."""
    writer = HDF5PredictionWriter(writer.path, mode="resume", accumulate=False)
    model.predict(rows, batch_size=23, verbose=0, callbacks=[writer])
    with PredictionFile(writer.path) as predictions:
        assert predictions.complete
        return {name: output[:] for name, output in predictions.items()}


def whole_job(model, rows, writer):
    """In one call."""
    with predict_to_hdf5(
        model, rows, writer.path, mode="w", batch_size=23, verbose=0
    ) as predictions:
        return {name: output[:] for name, output in predictions.items()}


def compile_and_predict(model, rows, writer):
    """After `compile`."""
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.optimizer.learning_rate = 0.0
    return predict_again(model, rows, writer)


def call(model, rows, writer):
    """Without `predict`."""
    y_pred = model(keras.ops.convert_to_tensor(rows), training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model.postprocess(y_pred))


def evaluate(model, rows, writer):
    """After another loop of Keras."""
    assert np.isfinite(model.evaluate(rows, np.zeros(70), verbose=0))
    return predict_again(model, rows, writer)


NEXT = [
    predict_again,
    predict_on_batch,
    resume,
    same_writer,
    whole_job,
    call,
    evaluate,
    compile_and_predict,
]


FAULTS_OF_JOBS = [name for name in FAULTS if name != "no rows" and not name.endswith("before ours")]


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.filterwarnings(
    "ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning"
)
@pytest.mark.parametrize(
    ("driver", "name"),
    [
        *((WithACallback, name) for name in FAULTS),
        *((AsAJob, name) for name in FAULTS_OF_JOBS),
    ],
)
def test_every_next_call_is_right(driver, name, model, rows, path):
    """After each fault each next call is right: weights, results and files as if it never was."""
    plain = model.predict(rows, batch_size=23, verbose=0)
    weights = model.get_weights()
    for follows in NEXT:
        predict = driver(model, path)
        path.unlink(missing_ok=True)
        failed = None
        try:
            FAULTS[name](predict, model, rows)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - each backend's own
            failed = error
        assert failed is not None
        result = follows(model, rows, predict.writer)
        for output, expected in plain.items():
            np.testing.assert_allclose(
                result[output], expected, rtol=1e-5, err_msg=f"{follows.__name__} after {failed!r}"
            )
        for before, after in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after, err_msg=follows.__name__)
