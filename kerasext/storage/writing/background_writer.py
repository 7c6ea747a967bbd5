"""Writing in a thread, so that the one that predicts does not wait for the disk."""

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

# Fewer bytes are not worth a switch of threads: they are written when the next commit is due.
_WAKE_BYTES = 1024 * 1024

Rows = Mapping[str, np.ndarray | RaggedRows]
ToArrays = Callable[[Any], Rows]


class _Wake:
    """An event that a finalizer can set.

    `threading.Event` has a lock, which the thread in which the finalizer runs may hold.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._calls.put(None)

    def is_set(self) -> bool:
        return not self._calls.empty()

    def wait(self, timeout: float) -> None:
        """Waits until it is set, at most `timeout` seconds, and clears it."""
        with contextlib.suppress(queue.Empty):
            self._calls.get(timeout=timeout)
            while True:
                self._calls.get_nowait()


class BackgroundWriter:
    """Hands steps to a `PredictionFileWriter` that runs in a thread of its own.

    `append` waits until the first step is written, so that it raises the error if outputs are
    wrong. Later calls only queue a reference: they call no function of h5py, copy nothing, and take
    no lock unless they wake the thread. An error in the thread is raised by the next call.

    A file that is open when the interpreter exits is closed as by `close`.

    Args:
        writer: The `PredictionFileWriter`. Only this object may write with it from now on.
        to_arrays: Callable that turns the argument of `append` into the argument of the writer's
            `append`. Called in the thread, once for each step.
        queue_bytes: Int. Bytes that may wait to be written. `append` waits while there are more,
            but admits one step always.
        commit_interval: Float. Seconds between commits. A commit has every row that came before it,
            unless more than 1 MiB wait to be written.
        step_bytes: Callable that returns the bytes of the argument of `append`, for rows that
            differ in size. Called in the thread of the caller. Defaults to `None`: each row has as
            many bytes as those of the first step.

    Attributes:
        writer: The writer.
        is_over: Bool. Whether the thread has ended.
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
        # Each is changed by one thread only, so neither needs a lock.
        self._bytes_queued = self._bytes_written = 0
        self._row_bytes = 0.0
        self._wake = _Wake()
        self._written = threading.Event()
        self._is_first_written = threading.Event()
        self._first_step: tuple[Any, int, int | Callable[[Rows], int]] = (None, 0, 0)
        self._end: Literal["", "finish", "close"] = ""
        self._is_abandoned = False
        self.is_over = False
        self._error: BaseException | None = None  # of the thread, until a call raises it
        self._failure: BaseException | None = None  # the same, for good
        self._thread: threading.Thread | None = None

    def append(self, step: Any, rows: int, *, known: int | Callable[[Rows], int] = 0) -> None:
        """Queues a step. Its arrays must not change any more.

        Args:
            step: The argument of `to_arrays`.
            rows: Int. Rows of the data that it adds; `to_arrays` may keep fewer.
            known: Int. As for the writer's `append`, in the first step only. Or a callable that
                returns it for the result of `to_arrays`; called in the thread.

        Raises:
            BaseException: Any error of the writer or of `to_arrays`: of this step if it is the
                first one, else of an earlier step.
            ValueError: If this object was closed.
        """
        if self._thread is None:
            self._start_thread(step, rows, known)
            return
        if self.is_over:
            self._raise_error()
            raise ValueError("The writer was closed; make another one. Received: a step after it")
        size = self._step_bytes(step) if self._step_bytes else int(rows * self._row_bytes)
        self._steps.append((step, rows, size))
        self._bytes_queued += size
        waiting = self._bytes_queued - self._bytes_written
        if waiting > _WAKE_BYTES and not self._wake.is_set():
            self._wake.set()
        if waiting > self._queue_bytes:
            self._stall()

    def finish(self) -> None:
        """Waits until all steps are written, marks the file as complete and closes it.

        Raises:
            BaseException: An error of the thread that no other call has raised.
            RuntimeError: If an earlier call has raised the error.
        """
        self._stop("finish")
        if self._failure is not None:
            raise RuntimeError(
                "The job has failed, and its file is incomplete; the cause was raised before. "
                f"Received: path={str(self.writer.path)!r}, {self._failure!r}"
            ) from self._failure

    def close(self) -> None:
        """Waits until all steps are written and closes the file, which stays incomplete.

        Does nothing after `finish` or an earlier `close`.

        Raises:
            BaseException: An error of the thread that no other call has raised.
        """
        self._stop("close")

    def abandon(self) -> None:
        """Tells the thread to write the queue and close the file, and does not wait for that.

        For finalizers: garbage collection may run one inside a call of h5py, whose lock the thread
        needs. The next writer of the file waits for the thread.
        """
        if self._thread is None:
            self.writer.close()  # which has not opened the file yet, and so calls no HDF5
            return
        self._is_abandoned = True
        self.writer.expect_release()
        self._end = "close"
        self._wake.set()
        if self.is_over:
            self._raise_error()

    def _start_thread(self, step: Any, rows: int, known: int | Callable[[Rows], int]) -> None:
        # A daemon, because the interpreter waits for other threads before it calls `atexit`.
        self._thread = threading.Thread(
            target=self._run, name=f"writes {self.writer.path.name}", daemon=True
        )
        self._first_step = step, rows, known
        self._pid = os.getpid()
        atexit.register(self._close_at_exit)
        self._thread.start()
        self._is_first_written.wait()
        if self.is_over:
            self._raise_error()

    def _write_first(self) -> None:
        (step, rows, known), self._first_step = self._first_step, (None, 0, 0)
        arrays = self._to_arrays(step)
        known = known(arrays) if callable(known) else known
        self.writer.append(arrays, known=known, data_rows=rows)
        length = len(next(iter(arrays.values())))
        self._row_bytes = sum(array.nbytes for array in arrays.values()) / max(length, 1)

    def _stall(self) -> None:
        began = time.perf_counter()
        while (
            self._bytes_queued - self._bytes_written > self._queue_bytes
            and len(self._steps) > 1
            and self._thread is not None
            and self._thread.is_alive()
        ):
            self._written.clear()
            self._wake.set()
            self._written.wait(0.1)  # not for ever, in case the thread has died
        self.writer.caller.stalled_seconds += time.perf_counter() - began

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
            self._is_first_written.set()
            self._write_until_end()
            getattr(self.writer, self._end)()
        except BaseException as error:  # noqa: BLE001 - raised by the next call
            self._error = self._failure = error
            self._steps.clear()
            try:
                self.writer.close()  # commits the rows before the wrong step
            except OSError as another:
                error.add_note(str(another))
            if self._is_abandoned:
                self._raise_error()  # so that Python prints it: no other call will come
        finally:
            atexit.unregister(self._close_at_exit)
            self.is_over = True
            self._is_first_written.set()
            self._written.set()

    def _write_until_end(self) -> None:
        commit_at = time.monotonic() + self._commit_interval
        while True:
            self._wake.wait(max(commit_at - time.monotonic(), 0))
            end = self._end  # read before the queue is emptied: steps that came before it count
            # Also if the commit is due: else it would leave out what came since the last one.
            self._write_several()
            while self._steps and time.monotonic() < commit_at:
                self._write_several()
            if time.monotonic() >= commit_at:
                self.writer.commit()
                commit_at = time.monotonic() + self._commit_interval
            if self._steps:
                self._wake.set()
            elif end:
                return

    def _write_several(self) -> None:
        # A call of the writer costs as much as copying 10 kB, so small steps are joined.
        steps: list[tuple[Rows, int]] = []
        size = 0
        try:
            while self._steps and size < _WAKE_BYTES:
                step, rows, step_size = self._steps.popleft()
                steps.append((self._to_arrays(step), rows))
                size += step_size
        finally:  # if `to_arrays` fails for one step, the steps before it are written
            self._append_together(steps)
        self._bytes_written += size
        self._written.set()

    def _append_together(self, steps: list[tuple[Rows, int]]) -> None:
        if not steps:
            return
        try:
            together = _concatenate([arrays for arrays, _ in steps])
            self.writer.append(together, data_rows=sum(rows for _, rows in steps))
        except (KeyError, TypeError, ValueError):  # one step is wrong; write those before it
            for arrays, rows in steps:
                self.writer.append(arrays, data_rows=rows)


def _concatenate(steps: list[Rows]) -> Rows:
    """Joins steps to one; raises an error if they differ in more than their rows."""
    if len(steps) == 1:
        return steps[0]
    first = steps[0]
    columns = {name: [step[name] for step in steps] for name in first}
    rows = [list(map(len, column)) for column in columns.values()]
    if set(map(len, steps)) != {len(first)} or rows.count(rows[0]) != len(rows):
        raise ValueError("steps of other outputs, or of unequal numbers of rows")
    return {name: join_ragged(column) for name, column in columns.items()}
