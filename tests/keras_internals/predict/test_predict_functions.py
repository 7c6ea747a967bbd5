"""What stands in for a model's predict function does so in its thread, and leaves no trace."""

import copy
import threading
import weakref

import keras
import numpy as np
import pytest

from kerasext.keras_internals.predict.predict_functions import PredictFunctions, predicting_alone


@pytest.fixture
def model():
    """A model that has predicted."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.predict(np.zeros((2, 4)), verbose=0)
    return model


def in_a_thread(function):
    """The result of a function in a thread that is dead when this returns."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def me():
    """The identity of the thread that calls."""
    return threading.get_ident()


def test_each_thread_has_its_own(model):
    """A stand-in is called in its thread; in others Keras's function is, or theirs."""
    kerass, functions = model.predict_function, PredictFunctions.of(model)
    model.predict_function = kerass_for_all = lambda *args: ("Keras's", *args)
    functions.place(mine := lambda *args: ("mine", *args))
    assert model.predict_function(1, 2) == ("mine", 1, 2)
    assert in_a_thread(lambda: model.predict_function(1)) == ("Keras's", 1)

    def other():
        functions.place(theirs := lambda *args: ("theirs", *args))
        found = model.predict_function(1), functions.placed() is theirs
        functions.remove(theirs, me())
        return *found, functions.placed()

    assert in_a_thread(other) == (("theirs", 1), True, None)
    assert model.predict_function(1) == ("mine", 1)
    functions.remove(mine, me())
    assert model.predict_function is kerass_for_all
    model.predict_function = kerass
    assert "make_predict_function" not in vars(model)


def test_the_order_in_which_they_go(model):
    """Whichever of two goes first, the other one stays, and Keras's function comes back."""
    kerass, functions = model.predict_function, PredictFunctions.of(model)
    placed, gone = threading.Event(), threading.Event()

    def other():
        functions.place(theirs := lambda *_: "theirs")
        placed.set()
        assert gone.wait(60)
        result = model.predict_function()
        functions.remove(theirs, me())
        return result

    results = []
    thread = threading.Thread(target=lambda: results.append(other()))
    functions.place(mine := lambda *_: "mine")
    thread.start()
    assert placed.wait(60)
    functions.remove(mine, me())
    assert model.predict_function is not kerass
    gone.set()
    thread.join()
    assert results == ["theirs"]
    assert model.predict_function is kerass


@pytest.mark.parametrize("force", [True, False])
def test_predict_begins_anew(force, model):
    """`make_predict_function` takes away what its thread and dead ones left, and nothing else."""
    kerass, functions = model.predict_function, PredictFunctions.of(model)
    in_a_thread(lambda: functions.place(lambda *_: "of a dead thread"))
    functions.place(mine := lambda *_: "mine")
    in_a_thread(lambda: model.make_predict_function(force=force))
    assert functions.is_placed(mine, me())
    assert model.predict_function() == "mine"
    model.make_predict_function()
    assert not functions.is_placed(mine, me())
    assert (model.predict_function is kerass) is not force
    assert "make_predict_function" not in vars(model)
    assert not functions._stand_ins


def test_compiled_meanwhile(model):
    """After `compile` Keras's function is made when it is needed, of the new options."""
    functions = PredictFunctions.of(model)
    functions.place(mine := lambda *_: "mine")
    in_a_thread(model.compile)
    assert model.predict_function is None
    functions.place(mine)
    assert model.predict_function() == "mine"
    functions.remove(mine, me())
    assert model.predict_function is None
    made = functions.function()
    assert made is not None
    assert model.predict_function is made


@pytest.mark.backends("tensorflow", reason="the others make no functions of several steps")
def test_a_function_apart(model):
    """A function as of a model with other attributes is made without the model."""
    kerass, functions = model.predict_function, PredictFunctions.of(model)
    rows = np.ones((2, 4), "float32")
    function = functions.make_apart(steps_per_execution=4)
    assert len(function([(rows,)] * 4)) == 8
    assert (model.steps_per_execution, model.predict_function) == (1, kerass)


def test_what_is_kept_until_the_model_is_compiled(model):
    """It is made once for each key, and again after `compile`."""
    functions = PredictFunctions.of(model)
    made = [functions.kept(key, object) for key in ("a", "b", "a")]
    assert made[0] is made[2] is not made[1]
    model.compile()
    assert functions.kept("a", object) is not made[0]


def test_copies_and_the_end(model):
    """A model that was tapped can be copied, and keeps nothing of what stood in alive."""
    functions = PredictFunctions.of(model)
    functions.place(mine := lambda *_: "mine")
    functions.remove(mine, me())
    reference = weakref.ref(mine)
    del mine
    assert reference() is None
    twin = copy.deepcopy(model)
    assert PredictFunctions.of(twin) is not functions
    twin.predict(np.zeros((2, 4)), verbose=0)


@pytest.mark.backends("jax", reason="elsewhere threads may")
def test_one_at_a_time(model):
    """On JAX a second thread is refused, unless the first one is dead or has gone."""

    def enter():
        with predicting_alone(model):
            return "entered"

    with (
        predicting_alone(model),
        predicting_alone(model),
        pytest.raises(RuntimeError, match="one thread at a time"),
    ):
        raise in_a_thread(lambda: _error_of(enter))
    assert in_a_thread(enter) == "entered"

    class User:
        pass

    user = User()
    functions = PredictFunctions.of(model)
    in_a_thread(lambda: functions.enter(user))
    functions.enter(other := User())
    del other
    assert in_a_thread(enter) == "entered"


def _error_of(function):
    try:
        return function()
    except RuntimeError as error:
        return error
