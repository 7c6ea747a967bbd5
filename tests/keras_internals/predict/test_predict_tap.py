import threading

import keras
import numpy as np
import pytest

from kerasext.keras_internals import to_numpy
from kerasext.keras_internals.predict.predict_functions import PredictFunctions
from kerasext.keras_internals.predict.predict_tap import PredictTap, StepTaps


class Listener:
    def __init__(self, *, accumulate=True, error=None, knows=0):
        self.accumulate = accumulate
        self.error = error
        self.knows = knows
        self.seen = []
        self.skipped = 0
        self.errors = 0

    def on_step_begin(self, rows, batches):
        if self.knows is None:
            return None
        return self.skipped + sum(map(len, self.seen)) + rows > self.knows

    def on_step_skipped(self, rows, batches):
        self.skipped += rows

    def on_step_outputs(self, outputs, rows, batches):
        if self.error is not None:
            raise self.error
        self.seen.append(outputs)

    def on_step_error(self):
        self.errors += 1


class Tapping(keras.callbacks.Callback):
    """Taps each step for each listener."""

    def __init__(self, *listeners):
        super().__init__()
        self.listeners = listeners
        self.taps = []

    def on_predict_begin(self, logs=None):
        self.of_each = [
            StepTaps(self._model, accumulate=listener.accumulate) for listener in self.listeners
        ]

    def on_predict_batch_begin(self, batch, logs=None):
        for taps, listener in zip(self.of_each, self.listeners, strict=True):
            self.taps.append(PredictTap.arm(taps, listener))


@pytest.fixture
def model():
    """A model of one output."""
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])


def joined(steps):
    """The outputs of all steps as one array."""
    return np.concatenate([to_numpy(step) for step in steps])


def predict(model, rows, *callbacks):
    """Predicts in batches of 23."""
    return model.predict(rows, batch_size=23, verbose=0, callbacks=list(callbacks))


def is_untouched(model):
    """Whether no tap is left on the model."""
    return "make_predict_function" not in vars(model) and not isinstance(
        getattr(model.predict_function, "__self__", None), PredictFunctions
    )


def test_a_listener_sees_each_step_once(model, rows):
    """Each step's outputs are seen once, in order, as the model returned them."""
    plain = predict(model, rows)
    listener = Listener()
    result = predict(model, rows, Tapping(listener))
    assert [len(step) for step in listener.seen] == [23, 23, 23, 1]
    np.testing.assert_array_equal(joined(listener.seen), plain)
    np.testing.assert_array_equal(result, plain)
    assert is_untouched(model)


def test_predict_keeps_nothing_unless_a_listener_wants_it(model, rows):
    """`predict` returns `{}` only if no listener of the step accumulates."""
    first, second = Listener(accumulate=False), Listener(accumulate=False)
    assert predict(model, rows, Tapping(first), Tapping(second)) == {}
    np.testing.assert_array_equal(joined(first.seen), joined(second.seen))
    assert len(predict(model, rows, Tapping(first, Listener()))) == 70


@pytest.mark.parametrize(
    ("wishes", "is_kept"),
    [
        ((None,), True),
        ((None, None), True),
        ((None, True), True),
        ((False, None), False),
        ((None, False, True), True),
    ],
)
def test_a_listener_that_looks_on_leaves_the_outputs_to_the_others(model, rows, wishes, is_kept):
    """Outputs are kept if a listener wants them, or none wants them gone."""
    listeners = [Listener(accumulate=wish) for wish in wishes]
    result = predict(model, rows, Tapping(*listeners))
    assert (len(result) == 70) is is_kept
    for listener in listeners:
        assert len(joined(listener.seen)) == 70


@pytest.mark.parametrize(
    ("others", "skipped"),
    [
        ([], 46),
        ([{"accumulate": None, "knows": None}], 46),
        ([{"accumulate": False, "knows": 23}], 23),
        ([{"accumulate": False, "knows": 0}], 0),
    ],
)
def test_a_step_is_skipped_if_no_listener_needs_it(model, rows, others, skipped):
    """What every listener has, but for those that only look on, is not computed."""
    listeners = [
        Listener(accumulate=False, knows=46),
        *(Listener(**other) for other in others),
    ]
    assert predict(model, rows, Tapping(*listeners)) == {}
    assert [listener.skipped for listener in listeners] == [skipped] * len(listeners)
    assert [len(joined(listener.seen)) for listener in listeners] == [70 - skipped] * len(listeners)


def test_who_only_looks_on_skips_nothing(model, rows):
    """Without a listener that has the rows every step is computed."""
    listener = Listener(accumulate=None, knows=None)
    assert len(predict(model, rows, Tapping(listener))) == 70
    assert listener.skipped == 0


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_in_a_listener_ends_predict_and_frees_the_model(model, rows, error):
    """An error in a listener reaches the caller, every listener is told, the next call works."""
    plain = predict(model, rows)
    bad, other = Listener(error=error), Listener()
    with pytest.raises(type(error)):
        predict(model, rows, Tapping(bad, other))
    assert (bad.errors, other.errors) == (1, 1)
    assert is_untouched(model)
    np.testing.assert_array_equal(predict(model, rows), plain)


class FailsInBatchBegin(keras.callbacks.Callback):
    def on_predict_batch_begin(self, batch, logs=None):
        if batch == 2:
            raise RuntimeError("between arming and the step")


@pytest.mark.parametrize("then", ["predict", "predict_on_batch"])
def test_a_tap_left_behind_swallows_nothing(model, rows, then):
    """After an error between arming and the step the next call returns its own results."""
    plain = predict(model, rows)
    listener = Listener(accumulate=False)
    with pytest.raises(RuntimeError, match="between"):
        predict(model, rows, Tapping(listener), FailsInBatchBegin())
    result = predict(model, rows) if then == "predict" else model.predict_on_batch(rows)
    np.testing.assert_allclose(result, plain, rtol=1e-5)
    assert len(listener.seen) == 2
    assert is_untouched(model)


class PredictsInBatchBegin(keras.callbacks.Callback):
    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def on_predict_batch_begin(self, batch, logs=None):
        self.model.predict_on_batch(self.rows)


def test_a_tap_knows_that_it_was_bypassed(model, rows):
    """A call of the same model between arming and the step shows in the tap's state."""
    tapping = Tapping(Listener())
    predict(model, rows, tapping, PredictsInBatchBegin(rows))
    assert {tap.state for tap in tapping.taps} == {"bypassed"}
    tapping = Tapping(Listener())
    predict(model, rows, PredictsInBatchBegin(rows), tapping)
    assert {tap.state for tap in tapping.taps} == {"called"}


def test_other_threads_are_not_tapped(model, rows):
    """A thread that predicts with the same model meanwhile gets its results and is not seen."""
    plain = predict(model, rows)
    predict(model, rows)
    results = []

    class PredictsElsewhere(keras.callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            thread = threading.Thread(
                target=lambda: results.append(self.model.predict_on_batch(rows))
            )
            thread.start()
            thread.join()

    listener = Listener(accumulate=False)
    predict(model, rows, Tapping(listener), PredictsElsewhere())
    assert len(results) == 4
    for result in results:
        np.testing.assert_allclose(result, plain, rtol=1e-5)
    np.testing.assert_array_equal(joined(listener.seen), plain)


def test_a_dead_listener_is_not_kept_alive(model, rows):
    """A tap holds its listener weakly: what it leaves behind on the model keeps no file open."""
    predict(model, rows)
    listener = Listener(accumulate=False)
    tap = PredictTap.arm(StepTaps(model), listener)
    del listener
    if keras.backend.backend() == "jax":
        model.predict_function(model._get_jax_state(True, True), iter([(rows,)]))
    else:
        model.predict_function([(keras.ops.convert_to_tensor(rows),)])
    assert tap.state == "called"
    assert is_untouched(model)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras, of generators
def test_unknown_length_leaves_a_tap_that_can_be_taken_off(model, rows):
    """Where the data end unannounced the last tap is armed for nothing, and `disarm` removes it.

    On JAX it is called, and finds the data at their end; on torch Keras looks ahead.
    """

    def batches():
        yield (rows[:5],)
        yield (rows[5:9],)

    listener = Listener()
    tapping = Tapping(listener)
    model.predict(batches(), verbose=0, callbacks=[tapping])
    assert len(listener.seen) == 2
    assert listener.errors == 0
    last = {"tensorflow": ["armed"], "jax": ["called"], "torch": []}[keras.backend.backend()]
    assert [tap.state for tap in tapping.taps] == ["called", "called", *last]
    tapping.taps[-1].disarm()
    assert is_untouched(model)
