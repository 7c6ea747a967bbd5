"""Seeing exactly what each predict step returns. The one place that knows Keras's predict loop.

A callback's `logs` are flattened, converted and keyed by the innermost name
(keras-team/keras#20380), and nothing that a callback does keeps `predict` from holding every output
(keras-team/keras#21642). What Keras 3.12 to 3.15 have on every backend instead, undocumented:

- the loop calls `callbacks.on_predict_batch_begin`, then `self.predict_function`, once per step;
- `predict` and `predict_on_batch` begin with `self.make_predict_function()`;
- the loop appends whatever structure `predict_function` returns: of `{}` it keeps nothing;
- on JAX `predict_function` takes and returns the model's state too, and ends the data by
  `StopIteration`;
- on JAX the model has no weights from its first step to its last, so that any error in between, one
  of a callback or Ctrl-C included, leaves it without. `fit` was repaired (keras-team/keras#21019).
  A step that is compiled gives them away for good (`donate_argnums`): if it fails, or Ctrl-C comes
  before its result is assigned, no array holds them any more.
"""

from __future__ import annotations

import importlib
import itertools
import threading
import types
import weakref
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import keras


class StepListener(Protocol):
    """What is told of each step; held weakly, so that a tap left behind keeps nothing alive."""

    accumulate: bool
    resuming: bool

    def knows_step(self, rows: int) -> bool:
        """Whether the step, of so many rows, need not be computed; asked if `resuming`."""

    def on_step_skipped(self, rows: int) -> None:
        """Called instead of `on_step_outputs` if no listener needs the step."""

    def on_step_outputs(self, outputs: Any) -> None:
        """Called with the outputs of a step, in the structure and tensors of the model."""

    def on_step_error(self) -> None:
        """Called if the step raises, in the model or in a listener."""


# Keras's predict functions on JAX, and the same without donation. Neither keeps its model alive.
_without_donation: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class PredictTap:
    """A wrapper on `model.predict_function` for one step.

    For one step only: an error between steps must not leave a wrapper that swallows the next plain
    `predict`. One that was armed and not called goes when the next `predict` begins.

    Args:
        model: The model that is predicting.
    """

    def __init__(self, model: keras.Model) -> None:
        self.state: Literal["armed", "called", "bypassed"] = "armed"
        self._model = model
        self._predict_function = model.predict_function
        self._thread = threading.get_ident()
        self._listeners: list[weakref.ref[StepListener]] = []
        # Past Keras's `__setattr__`, which tracks what it is given.
        model.__dict__["predict_function"] = self._step
        model.__dict__["make_predict_function"] = self._make_predict_function

    @classmethod
    def arm(cls, model: keras.Model, listener: StepListener) -> PredictTap:
        """Taps the step that is about to run; listeners of one step share a tap."""
        armed = getattr(model.__dict__["predict_function"], "__self__", None)
        tap = armed if isinstance(armed, cls) and armed._is_ours() else cls(model)
        tap._listeners.append(weakref.ref(listener))
        return tap

    @property
    def is_shared(self) -> bool:
        """Whether more than one listener is told of the step."""
        return len(self._listeners) > 1

    def disarm(self) -> None:
        """Takes the wrapper off, if it is still on."""
        if self.state == "armed":
            self.state = "bypassed"
            if self._model.__dict__.get("predict_function") == self._step:
                self._model.__dict__["predict_function"] = self._predict_function
            self._model.__dict__.pop("make_predict_function", None)

    def _is_ours(self) -> bool:
        return threading.get_ident() == self._thread

    def _make_predict_function(self, force: bool = False) -> Any:
        if self._is_ours():
            self.disarm()
        return type(self._model).make_predict_function(self._model, force)

    def _step(self, *args: Any) -> Any:
        if not self._is_ours():  # another thread predicts with the same model
            return self._predict_function(*args)
        self.disarm()
        self.state = "called"
        if len(args) > 1:
            self._predict_function = _keeping_weights(self._model, self._predict_function)
        listeners = [found for ref in self._listeners if (found := ref()) is not None]
        *state, data = args  # no state but on JAX
        self._attach(state)
        try:
            outputs, state = self._run(listeners, state, data)
        except StopIteration:
            raise  # the data has come to its end
        except BaseException:
            for listener in listeners:
                listener.on_step_error()
            raise
        if not any(listener.accumulate for listener in listeners):
            outputs = {}
        return (outputs, *state) if state else outputs

    def _run(self, listeners: list[StepListener], state: list[Any], data: Any) -> tuple[Any, Any]:
        """Runs the step, or skips it if no listener needs it."""
        if any(listener.resuming for listener in listeners):
            rows, data = self._count_rows(data)
            if all(listener.resuming and listener.knows_step(rows) for listener in listeners):
                for listener in listeners:
                    listener.on_step_skipped(rows)
                return {}, state
        result = self._predict_function(*state, data)
        outputs, *after = result if state else (result,)
        self._attach(after, attached=state)
        for listener in listeners:
            listener.on_step_outputs(outputs)
        return outputs, after

    def _attach(self, state: list[Any], attached: Sequence[Any] = ()) -> None:
        """Gives the model the weights that `predict` has taken from it, but those it has."""
        model = self._model
        has = {id(values) for kinds in attached for values in kinds}
        for trainable, others in state:
            for kind, values in (("trainable", trainable), ("non_trainable", others)):
                if id(values) not in has:
                    variables = getattr(model, f"{kind}_variables")
                    for variable, value in zip(variables, values, strict=True):
                        variable._value = value  # `assign` would take fifty times as long
            # Or the next `callback.model` would put back these, over weights set since an error.
            model._jax_state_synced = True

    def _count_rows(self, data: Any) -> tuple[int, Any]:
        """The number of rows of a step, and the data to go on with."""
        batches = data
        if keras.backend.backend() == "jax":  # the step would take its batches from an iterator
            batches = list(itertools.islice(data, self._model.steps_per_execution))
            if not batches:
                raise StopIteration
            data = iter(batches)
        return sum(len(keras.tree.flatten(batch)[0]) for batch in batches), data


def _keeping_weights(model: keras.Model, function: Any) -> Any:
    """The function, or on JAX the same that does not donate the state it is given."""
    made_by_keras = "JAXTrainer.make_predict_function.<locals>.step_function"
    if (
        getattr(function, "__qualname__", "") != made_by_keras
        or model.run_eagerly
        or not model.jit_compile
        or keras.config.is_nnx_enabled()
    ):
        return function
    if function not in _without_donation:
        jax: Any = importlib.import_module("jax")  # by name: it need not be installed
        held = weakref.ref(model)

        def predict_step(state: Any, data: Any) -> Any:
            alive = held()
            assert alive is not None
            return alive.predict_step(state, data)

        shardings = None
        if keras.distribution.distribution() is not None:
            shardings = (None, model._get_state_sharding_spec()[1])
        compiled = jax.jit(predict_step, out_shardings=shardings)

        def step(state: Any, data: Any) -> Any:
            outputs, others = compiled(state, data)
            return outputs, (state[0], others)

        settings = types.SimpleNamespace(
            steps_per_execution=model.steps_per_execution, run_eagerly=False, jit_compile=True
        )
        make_function: Any = type(model)._make_function
        _without_donation[function] = make_function(settings, step, concatenate_outputs=True)
    return _without_donation[function]
