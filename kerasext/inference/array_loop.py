"""What Keras's `predict` does with arrays, without its input pipeline and its dispatch.

A thread reads ahead, up to two threads compute, and the outputs are handed over in order.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

import keras

from kerasext.inference.row_slices import RowSlices
from kerasext.keras_internals import JobStep, weights_kept

_MANY = 32  # times as many batches as are computed together are worth another compilation
Take = Callable[[Any, int], object]


def predict_slices(
    model: keras.Model,
    slices: RowSlices,
    step: JobStep,
    take: Take,
    threads: LoopThreads,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 0,
) -> bool:
    """Predicts batch by batch, with the callbacks and the progress bar of Keras's `predict`.

    The hooks are called in Keras's order, with `logs` as of a `predict` that keeps no outputs. If
    callbacks have hooks for batches, no step begins before the hooks of the one before have ended.

    Args:
        model: The model.
        slices: `RowSlices`; closed at the end.
        step: `JobStep` of the model.
        take: Callable that is given the outputs of each batch, and its number of rows, in order. If
            a later step fails, it has been given those before.
        threads: `LoopThreads`.
        callbacks: Sequence of callbacks. Defaults to none.
        verbose: As for `model.predict`. Defaults to 0.

    Returns:
        Bool. Whether a callback stopped it before the last batch.
    """
    hooks = keras.callbacks.CallbackList(
        [*callbacks, _InThisThread()],
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=1,
        steps=slices.num_batches,
    )
    is_heard = bool(callbacks) or verbose != 0
    model.stop_predicting = False
    steps_of_job = _Steps(
        step, take, threads.steps, slices.num_batches, one_by_one=_have_batch_hooks(callbacks)
    )
    with weights_kept(model), contextlib.closing(slices), steps_of_job as steps:
        hooks.on_predict_begin()
        left = slices.num_batches
        batches = zip(slices.rows_of_batches(), slices, strict=True)
        for number, several in _numbered(batches, int(model.steps_per_execution)):
            if is_heard:
                hooks.on_predict_batch_begin(number)
            for rows, batch in several:
                steps.start(batch, rows)
            left -= len(several)
            if is_heard:
                hooks.on_predict_batch_end(number + len(several) - 1, {"outputs": {}})
            if model.stop_predicting:
                break
        steps.finish()
        hooks.on_predict_end()
    return left > 0


class _InThisThread(keras.callbacks.Callback):
    """Keeps Keras from calling the hooks of other callbacks, and the bar, in a pool of threads."""

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Does nothing; that it is there counts (keras-team/keras#20284)."""


def _numbered(
    batches: Iterable[tuple[int, Any]], together: int
) -> Iterator[tuple[int, list[tuple[int, Any]]]]:
    """The batches of each step, with the number of the first one."""
    iterator = iter(batches)
    number = 0
    while several := list(itertools.islice(iterator, together)):
        yield number, several
        number += len(several)


def _have_batch_hooks(callbacks: Sequence[keras.callbacks.Callback]) -> bool:
    base = keras.callbacks.Callback
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(base, name)
        for callback in callbacks
        for name in ("on_predict_batch_begin", "on_predict_batch_end")
    )


class LoopThreads:
    """The threads of a job, which read and compute; started when they are needed.

    Kept from one loop to the next, because the allocator gives each new thread memory of its own.

    Attributes:
        reader: Executor with one thread.
        steps: Executor with as many threads as may compute at once.
    """

    def __init__(self) -> None:
        self.reader = ThreadPoolExecutor(1, "kerasext-read-ahead")
        self.steps = ThreadPoolExecutor(2, "kerasext-step")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.reader.shutdown(wait=False, cancel_futures=True)
        self.steps.shutdown(cancel_futures=True)


class _Steps:
    """Steps that are under way, each handed over when it is computed, in order."""

    def __init__(
        self,
        step: JobStep,
        take: Take,
        threads: ThreadPoolExecutor,
        batches: int,
        *,
        one_by_one: bool,
    ) -> None:
        self._step = step
        self._take = take
        self._threads = threads
        self._batches = batches
        self._one_by_one = one_by_one
        self._in_threads = False
        self._together = 0  # before the step is prepared
        self._several: Callable[[Sequence[Any]], Any] | None = None
        self._gathered: list[tuple[Any, int]] = []
        self._under_way: deque[tuple[Future[Any] | Any, int]] = deque()
        self._has_taken = self._has_gathered = False

    def start(self, batch: Any, rows: int) -> None:
        """Starts a step, and hands over those before it that it need not wait for."""
        if not self._together:
            self._prepare(batch)
        if self._gathered and self._gathered[0][1] != rows:
            self._start_gathered()
        self._gathered.append((batch, rows))
        if len(self._gathered) >= self._together:
            self._start_gathered()

    def finish(self) -> None:
        """Hands over what is left."""
        self._start_gathered()
        while self._under_way:
            self._hand_over()

    def _prepare(self, batch: Any) -> None:
        step = self._step
        step.prepare(batch)
        self._in_threads = step.in_threads > 1 and not self._one_by_one
        is_long = self._batches >= _MANY * step.together
        self._together = step.together if is_long and not self._one_by_one else 1
        self._several = step.several if self._together > 1 else None

    def _start_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        if self._several is not None and len(gathered) == self._together:
            batches = [batch for batch, _ in gathered]
            self._compute(self._several, batches, sum(rows for _, rows in gathered))
            return
        for batch, rows in gathered:
            self._compute(self._step, batch, rows)

    def _compute(self, function: Callable[[Any], Any], batches: Any, rows: int) -> None:
        # The first time it is compiled, which is for this thread to do.
        is_compiled = function is self._step or self._has_gathered
        self._has_gathered = self._has_gathered or not is_compiled
        if self._in_threads and is_compiled:
            future = self._threads.submit(self._computed, function, batches)
            self._under_way.append((future, rows))
            most = self._step.in_threads + self._step.ahead
        else:
            self._under_way.append((function(batches), rows))
            # The first one is checked before there is another.
            most = self._step.ahead if self._has_taken else 0
        while len(self._under_way) > most:
            self._hand_over()

    def _computed(self, function: Callable[[Any], Any], batches: Any) -> Any:
        outputs = function(batches)
        self._step.wait(outputs)
        return outputs

    def _hand_over(self) -> None:
        outputs, rows = self._under_way.popleft()
        try:
            if isinstance(outputs, Future):
                outputs = outputs.result()
            else:
                self._step.wait(outputs)
            self._take(outputs, rows)
        except BaseException:
            self._drop()  # later ones: the rows of this one would be missing
            raise
        self._has_taken = True

    def _drop(self) -> None:
        """Forgets what is under way, and waits for what is being computed."""
        dropped = [outputs for outputs, _ in self._under_way if isinstance(outputs, Future)]
        self._under_way.clear()
        for future in dropped:
            future.cancel()
        wait(dropped)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._gathered.clear()
        try:
            self.finish()
        except Exception:
            if kind is None:
                raise
            # What was raised tells more.
        finally:
            self._drop()
