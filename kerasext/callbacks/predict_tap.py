"""Seeing exactly what each predict step returns; `keras_internals` says what it is built on."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import keras

from kerasext.callbacks.row_columns import without_keys
from kerasext.keras_internals import jax_state, predict_loop


class StepListener(Protocol):
    """What is told of each step; held weakly, so that a tap left behind keeps nothing alive.

    Attributes:
        accumulate: Bool. Whether `predict` is to keep the outputs; `None` of a listener that only
            looks on, and leaves that to the others.
        resuming: Bool. Whether there may be steps that need not be computed.
        id_key: String or `None`. What is taken out of the `x` of each batch, a dict, before the
            model gets it.
    """

    accumulate: bool | None
    resuming: bool
    id_key: str | None

    def knows_step(self, rows: int) -> bool:
        """Whether the step, of so many rows, need not be computed for it.

        Asked if any listener of the step is `resuming`.
        """

    def on_step_skipped(self, rows: int, batches: Sequence[Any]) -> None:
        """Called instead of `on_step_outputs` if no listener needs the step."""

    def on_step_outputs(self, outputs: Any, rows: int | None, batches: Sequence[Any]) -> None:
        """Called with the outputs of a step, in the structure and tensors of the model.

        Args:
            outputs: The outputs.
            rows: Int. Rows of the data that the step was given, `None` if unknown.
            batches: The batches of the step as they came, with what was taken out.
        """

    def on_step_error(self) -> None:
        """Called if the step raises, in the model or in a listener."""


class PredictTap:
    """A wrapper on `model.predict_function` for one step.

    For one step only: an error between steps must not leave a wrapper that swallows the next plain
    `predict`. One that was armed and not called goes when the next `predict` begins.

    Args:
        model: The model that is predicting.
        variables: What `jax_state.state_variables` lists, of use on JAX only.
    """

    def __init__(self, model: keras.Model, variables: list[Any]) -> None:
        self.state: Literal["armed", "called", "bypassed"] = "armed"
        self._model = model
        self._variables = variables
        self._predict_function = model.predict_function
        self._thread = threading.get_ident()
        self._listeners: list[weakref.ref[StepListener]] = []
        # Past Keras's `__setattr__`, which tracks what it is given.
        model.__dict__["predict_function"] = self._step
        model.__dict__["make_predict_function"] = self._make_predict_function

    @classmethod
    def arm(cls, model: keras.Model, variables: list[Any], listener: StepListener) -> PredictTap:
        """Taps the step that is about to run; listeners of one step share a tap."""
        armed = getattr(model.__dict__["predict_function"], "__self__", None)
        tap = armed if isinstance(armed, cls) and armed._is_ours() else cls(model, variables)
        tap._listeners.append(weakref.ref(listener))
        return tap

    @property
    def is_shared(self) -> bool:
        """Whether more than one listener needs the step; those that look on do not."""
        found = [listener for ref in self._listeners if (listener := ref()) is not None]
        return sum(listener.accumulate is not None for listener in found) > 1

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
        try:
            batches = self._take_batches(data)
            rows = self._count_rows(batches)
            keys = {listener.id_key for listener in listeners if listener.id_key is not None}
            data = [without_keys(batch, keys) for batch in batches] if keys else batches
            if state:
                data = iter(data)
            if (
                rows is not None
                and any(listener.resuming for listener in listeners)
                and all(listener.knows_step(rows) for listener in listeners)
            ):
                self._attach(state)
                for listener in listeners:
                    listener.on_step_skipped(rows, batches)
                outputs = {}
            else:
                outputs, *state = self._run(state, data)
                self._attach(state)
                for listener in listeners:
                    listener.on_step_outputs(outputs, rows, batches)
        except BaseException as error:
            self._attach(state)
            jax_state.forget_state(self._model)
            if not isinstance(error, StopIteration):  # the data has come to its end
                for listener in listeners:
                    listener.on_step_error()
            raise
        wishes = {listener.accumulate for listener in listeners}
        if False in wishes and True not in wishes:
            outputs = {}
        return (outputs, *state) if state else outputs

    def _run(self, state: list[Any], data: Any) -> tuple[Any, ...]:
        if not state:
            return (self._predict_function(data),)
        function = jax_state.sparing_function(self._model, self._predict_function)
        result: tuple[Any, ...] = function(*state, data)
        return result

    def _attach(self, state: list[Any]) -> None:
        for values in state:
            jax_state.attach_state(self._variables, values)

    def _take_batches(self, data: Any) -> Sequence[Any]:
        if not hasattr(data, "__next__"):
            batches: Sequence[Any] = data
            return batches
        # On JAX the step would take its batches from an iterator.
        batches = list(itertools.islice(data, self._model.steps_per_execution))
        if not batches:
            raise StopIteration
        return batches

    def _count_rows(self, batches: Sequence[Any]) -> int | None:
        rows = 0
        for batch in batches:
            length = predict_loop.number_of_rows(batch, self._model)
            if length is None:
                return None
            rows += length
        return rows
