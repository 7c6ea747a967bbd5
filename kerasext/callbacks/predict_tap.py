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
"""

from __future__ import annotations

import itertools
import threading
import weakref
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
        outputs, *state = result if state else (result,)
        self._attach(state)
        for listener in listeners:
            listener.on_step_outputs(outputs)
        return outputs, state

    def _attach(self, state: list[Any]) -> None:
        """Gives the model the weights that `predict` has taken from it."""
        model = self._model
        for values in state:
            variables = [*model.trainable_variables, *model.non_trainable_variables]
            for variable, value in zip(variables, itertools.chain(*values), strict=True):
                variable._value = value  # `assign` would take fifty times as long

    def _count_rows(self, data: Any) -> tuple[int, Any]:
        """The number of rows of a step, and the data to go on with."""
        batches = data
        if keras.backend.backend() == "jax":  # the step would take its batches from an iterator
            batches = list(itertools.islice(data, self._model.steps_per_execution))
            if not batches:
                raise StopIteration
            data = iter(batches)
        return sum(len(keras.tree.flatten(batch)[0]) for batch in batches), data
