"""A thread that writes, so that the one that predicts does not wait for the disk."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from kerasext.storage.columns.ragged_rows import RaggedRows, join_ragged
from kerasext.storage.writing.file_writer import PredictionFileWriter

_WAKE_BYTES = 1024 * 1024  # less is not worth a switch of threads; the clock brings it in anyway

Rows = Mapping[str, np.ndarray | RaggedRows]
ToArrays = Callable[[Any], Rows]


class _Wake:
    """An event that a finalizer can set.

    `threading.Event` has a lock, which the thread that runs the finalizer may hold.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._calls.put(None)

    def is_set(self) -> bool:
        return not self._calls.empty()

    def wait(self, timeout: float) -> None:
        """Waits until it is set, but so many seconds at most, and clears it."""
        with contextlib.suppress(queue.Empty):
            self._calls.get(timeout=timeout)
            while True:
                self._calls.get_nowait()


class BackgroundWriter:
    """Hands the steps to a `PredictionFileWriter` that runs in a thread of its own.

    At the exit of the interpreter a file that is open is closed, as by `close`.

    The caller waits until the first step is written, so that what is wrong with the outputs shows
    there. After it the caller only leaves a reference: no call of h5py, no copy, and no lock unless
    the thread is to be woken. An error in the thread is raised by the next call.

    Args:
        writer: The `PredictionFileWriter`; from now on it belongs to this object.
        to_arrays: Callable from what `append` is given to the mapping that the writer's `append`
            takes. Called in the thread, once for each.
        queue_bytes: Int. Bytes that may wait to be written. A caller that comes with more waits
            itself; one step is always admitted.
        commit_interval: Float. Seconds between commits. A commit has every row that came before it,
            unless more than 1 MiB wait to be written.
        step_bytes: Callable from what `append` is given to its bytes, where rows differ in size.
            Called by the caller's thread. Defaults to `None`: as many per row as the first step
            has.

    Attributes:
        writer: The writer, to be asked for its path and rows.
        is_over: Bool. Whether the thread has ended, of itself or by an error.
    """

    def __init__(
        self,
        writer: PredictionFileWriter,
        *,
        to_arrays: ToArrays,
        queue_bytes: int,
        commit_interval: float,
        step_bytes: Callable[[Any], int] | None = None,
    ) -> None:
        self.writer = writer
        self._to_arrays = to_arrays
        self._queue_bytes = queue_bytes
        self._commit_interval = commit_interval
        self._step_bytes = step_bytes
        self._steps: deque[tuple[Any, int, int]] = deque()  # with their rows, and their bytes
        # Each is counted by one thread only, so that neither needs a lock.
        self._bytes_come = self._bytes_gone = 0
        self._row_bytes = 0.0
        self._wake = _Wake()
        self._gone = threading.Event()
        self._begun = threading.Event()
        self._first: tuple[Any, int, int | Callable[[Rows], int]] = (None, 0, 0)
        self._end: Literal["", "finish", "close"] = ""
        self._is_abandoned = False
        self.is_over = False
        self._error: BaseException | None = None  # until it is raised
        self._failure: BaseException | None = None  # for good
        self._thread: threading.Thread | None = None

    def append(self, step: Any, rows: int, *, known: int | Callable[[Rows], int] = 0) -> None:
        """Leaves a step to be written; its arrays must not change any more.

        Args:
            step: What `to_arrays` takes.
            rows: Int. Rows of the data that it adds, of which `to_arrays` may keep fewer.
            known: Int. As for the writer's `append`; in the first step only. Or a callable that
                finds it from what `to_arrays` returned, called in the thread.

        Raises:
            BaseException: What the writer's `append` or `commit` raised, for this step if it is the
                first one, else for one before.
        """
        if self._thread is None:
            self._begin(step, rows, known)
            return
        if self.is_over:
            self._raise_error()
            raise ValueError("The writer was closed; make another one. Received: a step after it")
        size = self._step_bytes(step) if self._step_bytes else int(rows * self._row_bytes)
        self._steps.append((step, rows, size))
        self._bytes_come += size
        waiting = self._bytes_come - self._bytes_gone
        if waiting > _WAKE_BYTES and not self._wake.is_set():
            self._wake.set()
        if waiting > self._queue_bytes:
            self._stall()

    def finish(self) -> None:
        """Waits until all is written, marks the file as complete and closes it.

        Raises:
            BaseException: What was raised in the thread and not yet by another call.
            RuntimeError: If an earlier call raised it.
        """
        self._stop("finish")
        if self._failure is not None:
            raise RuntimeError(
                "The job has failed, and its file is incomplete; the cause was raised before. "
                f"Received: path={str(self.writer.path)!r}, {self._failure!r}"
            ) from self._failure

    def close(self) -> None:
        """Waits until all is written and closes the file, which then says that it is incomplete.

        Does nothing after `finish` or an earlier `close`.

        Raises:
            BaseException: What was raised in the thread and not yet by another call.
        """
        self._stop("close")

    def abandon(self) -> None:
        """Lets the thread write what is left and close the file, and does not wait for it.

        For finalizers: a garbage collection may run one inside a call of h5py, whose lock the
        thread needs. The next writer of the file waits for the thread.
        """
        if self._thread is None:
            self.writer.close()  # which has no HDF5 file yet
            return
        self._is_abandoned = True
        self.writer.expect_release()
        self._end = "close"
        self._wake.set()
        if self.is_over:
            self._raise_error()

    def _begin(self, step: Any, rows: int, known: int | Callable[[Rows], int]) -> None:
        # A daemon: the interpreter would wait for another at its exit, before anybody can stop it.
        self._thread = threading.Thread(
            target=self._run, name=f"writes {self.writer.path.name}", daemon=True
        )
        self._first = step, rows, known
        self._pid = os.getpid()
        atexit.register(self._close_at_exit)
        self._thread.start()
        self._begun.wait()
        if self.is_over:
            self._raise_error()

    def _write_first(self) -> None:
        (step, rows, known), self._first = self._first, (None, 0, 0)
        arrays = self._to_arrays(step)
        known = known(arrays) if callable(known) else known
        self.writer.append(arrays, known=known, data_rows=rows)
        length = len(next(iter(arrays.values())))
        self._row_bytes = sum(array.nbytes for array in arrays.values()) / max(length, 1)

    def _stall(self) -> None:
        began = time.perf_counter()
        while (
            self._bytes_come - self._bytes_gone > self._queue_bytes
            and len(self._steps) > 1
            and self._thread is not None
            and self._thread.is_alive()
        ):
            self._gone.clear()
            self._wake.set()
            self._gone.wait(0.1)  # a thread that died without a word can't hang us
        self.writer.stalled_seconds += time.perf_counter() - began

    def _stop(self, how: Literal["finish", "close"]) -> None:
        if self._thread is None:
            getattr(self.writer, how)()
            return
        self._end = how
        self._wake.set()
        self._thread.join()
        self._raise_error()

    def _close_at_exit(self) -> None:
        try:
            self.close()
        finally:
            # Also after another Ctrl-C: the interpreter stops its threads, and if this one has
            # h5py's lock then, the exit waits for that lock forever. Not by `join`, which after an
            # interrupt takes the thread for ended (python/cpython#90882).
            self._end = self._end or "close"
            self._wake.set()
            while not self.is_over and os.getpid() == self._pid:  # a fork has no such thread
                time.sleep(0.01)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._write_first()
            self._begun.set()
            self._write_until_the_end()
            getattr(self.writer, self._end)()
        except BaseException as error:  # noqa: BLE001 - raised by the next call
            self._error = self._failure = error
            self._steps.clear()
            try:
                self.writer.close()  # which keeps the rows before a step that was wrong
            except OSError as another:
                error.add_note(str(another))
            if self._is_abandoned:
                self._raise_error()  # which shows it: there is no next call
        finally:
            atexit.unregister(self._close_at_exit)
            self.is_over = True
            self._begun.set()
            self._gone.set()

    def _write_until_the_end(self) -> None:
        commit_at = time.monotonic() + self._commit_interval
        while True:
            self._wake.wait(max(commit_at - time.monotonic(), 0))
            end = self._end  # before the queue is emptied: what came before it is to be written
            # Also if the commit is due: else it would leave out what came since the last one.
            self._write_some()
            while self._steps and time.monotonic() < commit_at:
                self._write_some()
            if time.monotonic() >= commit_at:
                self.writer.commit()
                commit_at = time.monotonic() + self._commit_interval
            if self._steps:
                self._wake.set()
            elif end:
                return

    def _write_some(self) -> None:
        # A call of the writer costs as much as copying 10 kB: small steps are put together.
        steps: list[tuple[Rows, int]] = []
        size = 0
        try:
            while self._steps and size < _WAKE_BYTES:
                step, rows, step_size = self._steps.popleft()
                steps.append((self._to_arrays(step), rows))
                size += step_size
        finally:  # also those before one that is none
            self._write_together(steps)
        self._bytes_gone += size
        self._gone.set()

    def _write_together(self, steps: list[tuple[Rows, int]]) -> None:
        if not steps:
            return
        try:
            together = _concatenate([arrays for arrays, _ in steps])
            self.writer.append(together, data_rows=sum(rows for _, rows in steps))
        except (KeyError, TypeError, ValueError):  # one of them is wrong: those before it are not
            for arrays, rows in steps:
                self.writer.append(arrays, data_rows=rows)


def _concatenate(steps: list[Rows]) -> Rows:
    """Makes one step of several; raises an error if they differ in more than their rows."""
    if len(steps) == 1:
        return steps[0]
    first = steps[0]
    columns = {name: [step[name] for step in steps] for name in first}
    rows = [list(map(len, column)) for column in columns.values()]
    if set(map(len, steps)) != {len(first)} or rows.count(rows[0]) != len(rows):
        raise ValueError("steps of other outputs, or of unequal rows")
    return {name: join_ragged(column) for name, column in columns.items()}
