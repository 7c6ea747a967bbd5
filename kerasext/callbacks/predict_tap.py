"""Seeing exactly what each predict step returns; `keras_internals` says what it is built on."""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import keras

from kerasext.callbacks.row_columns import without_keys, without_text
from kerasext.keras_internals import PredictFunctions, jax_state, predict_loop, takes_dict


class SeveralSteps(NamedTuple):
    """How a job gives several batches to one step; Keras knows of one.

    `model.steps_per_execution` does that for all threads that predict with the model.

    Args:
        batches: Int. Batches of a step; the last one may have fewer.
        function: The predict function for them, or `None` for Keras's.
    """

    batches: int
    function: Any


class StepListener(Protocol):
    """What is told of each step; held weakly, so that a tap left behind keeps nothing alive.

    Attributes:
        accumulate: Bool. Whether `predict` is to keep the outputs; `None` of a listener that only
            looks on, and leaves that to the others.
        resuming: Bool. Whether there may be steps that need not be computed.
        id_key: String or `None`. What is taken out of the `x` of each batch, a dict, before the
            model gets it.
        several_steps: `SeveralSteps` if each batch of the data is a list of batches, else `None`.
    """

    accumulate: bool | None
    resuming: bool
    id_key: str | None
    several_steps: SeveralSteps | None

    def knows_step(self, rows: int) -> bool:
        """Whether the step, of so many rows, need not be computed for it.

        Asked if any listener of the step is `resuming`.
        """

    def before_step(self, batches: Sequence[Any]) -> None:
        """Called before a step is computed, with its batches as they came."""

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
    """What stands in for `model.predict_function` for one step, in one thread.

    For one step only: an error between steps must not leave a wrapper that swallows the next plain
    `predict`. One that was armed and not called goes when the next `predict` of its thread begins.

    Args:
        model: The model that is predicting.
        variables: What `jax_state.state_variables` lists, of use on JAX only.
        functions: The predict functions of the model.

    Attributes:
        found_no_data: Bool. Whether the data had come to their end when the step was called, which
            is how they end on JAX where their length is unknown.
    """

    def __init__(
        self, model: keras.Model, variables: list[Any], functions: PredictFunctions
    ) -> None:
        self.found_no_data = False
        self._was_called = False
        self._model = model
        self._variables = variables
        self._functions = functions
        self._ident = threading.get_ident()
        self._listeners: list[weakref.ref[StepListener]] = []

    @classmethod
    def arm(cls, model: keras.Model, variables: list[Any], listener: StepListener) -> PredictTap:
        """Taps the step that is about to run; listeners of one step share a tap."""
        functions = PredictFunctions.of(model)
        tap = functions.placed()
        if not isinstance(tap, cls):
            tap = cls(model, variables, functions)
            functions.place(tap)
        elif any(ref() is listener for ref in tap._listeners):
            return tap
        tap._listeners.append(weakref.ref(listener))
        return tap

    @property
    def state(self) -> Literal["armed", "called", "bypassed"]:
        """Whether the step is still to come, was seen, or will never be."""
        if self._was_called:
            return "called"
        return "armed" if self._functions.is_placed(self, self._ident) else "bypassed"

    def disarm(self) -> None:
        """Takes the wrapper off, if it is still on."""
        self._functions.remove(self, self._ident)

    def __call__(self, *args: Any) -> Any:
        """Runs the step, as Keras calls its predict function."""
        self.disarm()
        self._was_called = True
        listeners = [found for ref in self._listeners if (found := ref()) is not None]
        *state, data = args  # no state but on JAX
        try:
            batches = self._take_batches(data)
            several = next((one.several_steps for one in listeners if one.several_steps), None)
            if several:
                batches = [batch for together in batches for batch in together]
            rows = self._count_rows(batches)
            data = self._for_model(state, batches, listeners)
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
                for listener in listeners:
                    listener.before_step(batches)
                outputs, *state = self._run(state, data, several)
                self._attach(state)
                for listener in listeners:
                    listener.on_step_outputs(outputs, rows, batches)
        except BaseException as error:
            self._attach(state)
            jax_state.forget_state(self._model)
            if isinstance(error, StopIteration):
                self.found_no_data = True
            else:
                for listener in listeners:
                    listener.on_step_error()
            raise
        wishes = {listener.accumulate for listener in listeners}
        if False in wishes and True not in wishes:
            outputs = {}
        return (outputs, *state) if state else outputs

    def _run(
        self, state: list[Any], data: Sequence[Any], several: SeveralSteps | None
    ) -> tuple[Any, ...]:
        if not state:
            return ((several.function if several else self._functions.function())(data),)
        function = jax_state.sparing_function(self._model, self._functions.function())
        # Of several steps the number, for the model's own is another.
        steps = (len(data),) if several else ()
        result: tuple[Any, ...] = function(*state, iter(data), *steps)
        return result

    def _for_model(
        self, state: list[Any], batches: Sequence[Any], listeners: Sequence[StepListener]
    ) -> Sequence[Any]:
        """The batches without what is not for the model."""
        keys = {listener.id_key for listener in listeners if listener.id_key is not None}
        if keys:
            takes_dict = functools.partial(self._takes_dict, state)
            batches = [without_keys(batch, keys, takes_dict) for batch in batches]
        return [without_text(batch) for batch in batches] if state else batches

    def _takes_dict(self, state: list[Any], x: dict[str, Any]) -> bool:
        known = self._functions.takes_dict
        (key,) = x
        if key not in known:  # asked once, because a symbolic call takes as long as many steps
            self._attach(state)  # or the model would have no weights
            known[key] = takes_dict(self._model, x)
        return known[key]

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
