"""Seeing exactly what each step of Keras's `predict` returns.

`predict_loop` says which structure of Keras this is built on.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Hashable, Sequence
from typing import Any, Literal, Protocol

import keras

from kerasext.keras_internals.model_inputs import takes_dict
from kerasext.keras_internals.predict import jax_state, predict_loop
from kerasext.keras_internals.predict.predict_functions import PredictFunctions
from kerasext.keras_internals.predict.step_batches import without_keys, without_text


class StepListener(Protocol):
    """An object that hears of each step.

    A tap holds it weakly: a tap that is left behind keeps no file open.
    """

    def on_step_begin(self, rows: int | None, batches: Sequence[Any]) -> bool | None:
        """Called before a step.

        Args:
            rows: Int. Rows of the data that the step is given, `None` if unknown.
            batches: The batches of the step as they came, with what is taken out of them.

        Returns:
            `False` if the step need not be computed for it, `None` if it only looks on.
        """

    def on_step_skipped(self, rows: int, batches: Sequence[Any]) -> None:
        """Called instead of `on_step_outputs` if no listener needs the step."""

    def on_step_outputs(self, outputs: Any, rows: int | None, batches: Sequence[Any]) -> None:
        """Called with the outputs of a step, in the structure and tensors of the model."""

    def on_step_error(self) -> None:
        """Called if the step raises, in the model or in a listener."""


class PredictTap:
    """What stands in for `model.predict_function` for one step, in one thread.

    For one step only: an error between steps must not leave a wrapper that swallows the next plain
    `predict`. One that was armed and not called goes when the next `predict` of its thread begins.

    Args:
        taps: `StepTaps` of the first listener of the step.

    Attributes:
        found_no_data: Bool. Whether the data had come to their end when the step was called, which
            is how they end on JAX where their length is unknown.
    """

    def __init__(self, taps: StepTaps) -> None:
        self.found_no_data = False
        self._was_called = False
        self._model = taps.model
        self._variables = taps.variables
        self._step = taps.step
        self._functions = PredictFunctions.of(taps.model)
        self._ident = threading.get_ident()
        self._listeners: list[weakref.ref[StepListener]] = []
        self._taps: list[weakref.ref[StepTaps]] = []
        self._id_keys: set[str] = set()
        self._wishes: set[bool | None] = set()

    @classmethod
    def arm(cls, taps: StepTaps, listener: StepListener) -> PredictTap:
        """Taps the step that is about to run; listeners of one step share a tap."""
        functions = PredictFunctions.of(taps.model)
        tap = functions.placed()
        if not isinstance(tap, cls):
            tap = cls(taps)
            functions.place(tap)
        elif any(ref() is listener for ref in tap._listeners):
            return tap
        tap._listeners.append(weakref.ref(listener))
        tap._taps.append(weakref.ref(taps))
        tap._wishes.add(taps.accumulate)
        if taps.id_key is not None:
            tap._id_keys.add(taps.id_key)
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
            rows = self._count_rows(batches)
            data = self._for_model(state, batches)
            needs = {listener.on_step_begin(rows, batches) for listener in listeners}
            if rows is not None and False in needs and True not in needs:
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
            if isinstance(error, StopIteration):
                self.found_no_data = True
            else:
                for listener in listeners:
                    listener.on_step_error()
                for ref in self._taps:
                    if (taps := ref()) is not None:
                        taps.close()
            raise
        if False in self._wishes and True not in self._wishes:
            outputs = {}
        return (outputs, *state) if state else outputs

    def _run(self, state: list[Any], data: Sequence[Any]) -> tuple[Any, ...]:
        function = self._functions.function()
        if not state:
            return (self._step(function, data),)
        function = jax_state.sparing_function(self._model, function)
        result: tuple[Any, ...] = function(*state, iter(data))
        return result

    def _for_model(self, state: list[Any], batches: Sequence[Any]) -> Sequence[Any]:
        """The batches without what is not for the model."""
        if self._id_keys:
            takes_dict = functools.partial(self._takes_dict, state)
            batches = [without_keys(batch, self._id_keys, takes_dict) for batch in batches]
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


class StepTaps:
    """The taps of one call of `predict`, for one listener.

    Args:
        model: A model whose `predict` begins.
        accumulate: Bool. Whether `predict` is to keep the outputs; `None` leaves that to others.
        id_key: String or `None`. What is taken out of the `x` of each batch, a dict, before the
            model gets it.

    Raises:
        RuntimeError: If Keras has changed; on JAX, if another thread predicts with the model.
        ValueError: If several processes share the call.
    """

    def __init__(
        self, model: keras.Model, *, accumulate: bool | None = None, id_key: str | None = None
    ) -> None:
        predict_loop.check_predict_loop(model)
        PredictFunctions.of(model).enter(self)
        jax_state.forget_state(model)
        self.model = model
        self.accumulate = accumulate
        self.id_key = id_key
        self.variables = jax_state.state_variables(model)
        self.step = _Step()
        self._tap: PredictTap | None = None

    def tap_next(self, listener: StepListener) -> None:
        """Taps the step that is about to run.

        Raises:
            RuntimeError: If the step before was computed without the tap.
        """
        self._check_seen("called")
        self._tap = PredictTap.arm(self, listener)

    def check_end(self) -> None:
        """Checks that the last step was seen.

        Raises:
            RuntimeError: If it was computed without the tap.
        """
        # Where the length of the data is unknown, the last tap waits for a step that never comes.
        self._check_seen("called", "armed")

    def has_seen_the_end(self) -> bool:
        """Whether data of unknown length had come to their end when `predict` ended."""
        if keras.backend.backend() == "torch":  # which knows before the step that there is none
            return not self.model.stop_predicting
        return self._tap is None or self._tap.state == "armed" or self._tap.found_no_data

    def close(self) -> None:
        """Takes off what is left on the model."""
        tap, self._tap = self._tap, None
        if tap is not None:
            tap.disarm()
        PredictFunctions.of(self.model).leave(self)
        jax_state.forget_state(self.model)

    def _check_seen(self, *states: str) -> None:
        if self._tap is None or self._tap.state in states:
            return
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # it has its weights back: no tap has seen to that
        raise RuntimeError(
            "A step was computed that this callback could not see. Either another callback "
            "predicted with the same model in its `on_predict_batch_begin`; put it before this one "
            "in `callbacks`. Or another thread made the model's predict function at that moment; "
            "call `compile` and `make_predict_function` before threads begin. A file that is being "
            "written holds the rows before that step, and is incomplete."
        )


class _Step:
    """Calls a predict function of TensorFlow without looking for the right trace each time.

    That takes half of the time of a small step. The trace that belongs to inputs of some shapes and
    dtypes is kept for one call of `predict`.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def __call__(self, function: Any, data: Sequence[Any]) -> Any:
        if keras.backend.backend() != "tensorflow" or not hasattr(
            function, "get_concrete_function"
        ):
            return function(data)
        signature = _signature(data)
        if signature is None:
            return function(data)
        key = function, signature
        concrete = self._known.get(key)
        if concrete is not None:
            return concrete(data)
        outputs = function(data)  # which may trace it
        self._known[key] = function.get_concrete_function(data)
        return outputs


def _signature(data: Any) -> Hashable:
    """Structure, shapes and dtypes of dense tensors; `None` if there is anything else."""
    if isinstance(data, list | tuple):
        parts = [_signature(part) for part in data]
        return None if None in parts else (type(data), *parts)
    if type(data) is dict:
        parts = [_signature(part) for part in data.values()]
        return None if None in parts else (*data, *parts)
    shape_tuple = getattr(data, "_shape_tuple", None)  # `shape` takes ten times as long
    return None if shape_tuple is None else (data.dtype, shape_tuple())
