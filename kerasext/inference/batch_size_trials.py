"""Trying batch sizes on real rows, one after the other, and timing them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from kerasext.keras_internals import is_out_of_memory

SIZES = (32, 128, 512, 2048, 8192, 32768, 131_072)
# A larger batch costs memory, and waiting for the first result: it must be worth it.
_GOOD_ENOUGH = 0.95
_CANDIDATE = 0.75  # of the best rate: what is worth measuring again
_LEAST_BATCHES = 4  # fewer do not show that reading, computing and writing overlap


class Trial(NamedTuple):
    """What was measured of one batch size."""

    batch_size: int
    rows: int
    """Rows that were timed; the first batch of a size, in which the model may be traced, is not."""
    seconds: float
    first_seconds: float
    """Time of the first batch."""

    @property
    def rows_per_second(self) -> float:
        """The rate."""
        return self.rows / self.seconds


class Trials:
    """Times a model at growing batch sizes until more rows at a time gain nothing.

    Args:
        predict: Callable that predicts the next rows, so many and at such a batch size.
        rows: Int. Number of rows that may be predicted; no size is tried that is more than a fifth
            of what is left of them.
        largest: Int. Largest batch size to try.
        seconds: Float. How long each size is timed at least, if there are enough rows.

    Attributes:
        trials: List of what was measured; empty if there are too few rows.
        done: Int. Rows that were predicted.
        is_conclusive: Bool. Whether larger sizes are slower, or too large, rather than untried.
    """

    def __init__(
        self, predict: Callable[[int, int], object], rows: int, largest: int, *, seconds: float
    ) -> None:
        self.trials: list[Trial] = []
        self.done = 0
        self.is_conclusive = False
        self._predict = predict
        self._rows = rows
        self._largest = largest
        self._seconds = seconds

    @property
    def best(self) -> Trial:
        """The smallest batch size that is nearly as fast as the fastest one."""
        fastest = max(trial.rows_per_second for trial in self.trials)
        return next(
            trial for trial in self.trials if trial.rows_per_second >= _GOOD_ENOUGH * fastest
        )

    def run(self, goes_on: Callable[[Trials], bool]) -> None:
        """Tries the sizes.

        Args:
            goes_on: Callable, asked before each size but the first whether to try it.

        Raises:
            BaseException: What the model raises, unless it runs out of memory at another size than
                the smallest.
        """
        for size in SIZES:
            if self.done + (1 + _LEAST_BATCHES) * size > self._rows or (
                self.trials and not goes_on(self)
            ):
                return
            if self.trials and size > self._largest:
                break
            try:
                self._try(size)
            except Exception as error:
                if self.trials and is_out_of_memory(error):
                    break
                raise
            if self._has_fallen():
                break
        self.is_conclusive = True

    def measure_again(self, seconds: float) -> None:
        """Times the best sizes once more, so many seconds each, as far as there are rows."""
        fastest = max(trial.rows_per_second for trial in self.trials)
        for at, trial in enumerate(self.trials):
            if trial.rows_per_second >= _CANDIDATE * fastest:
                rows, spent = self._time_batches(trial.batch_size, seconds)
                self.trials[at] = trial._replace(
                    rows=trial.rows + rows, seconds=trial.seconds + spent
                )

    def _try(self, size: int) -> None:
        first_seconds = self._time(size, size)
        rows, seconds = self._time_batches(size, self._seconds)
        self.trials.append(Trial(size, rows, seconds, first_seconds))

    def _time_batches(self, size: int, at_least: float) -> tuple[int, float]:
        """Rows and seconds of some batches."""
        rows, seconds = 0, 0.0
        batches = _LEAST_BATCHES
        while seconds < at_least:
            batches = min(batches, (self._rows - self.done) // size)
            if not batches:
                break
            seconds += self._time(batches * size, size)
            rows += batches * size
            # So many more at the rate so far, that it is enough; each call has a cost of its own.
            batches = max(int((at_least - seconds) / seconds * rows / size), 1)
        return rows, seconds

    def _time(self, rows: int, size: int) -> float:
        began = time.perf_counter()
        self._predict(rows, size)
        self.done += rows
        return time.perf_counter() - began

    def _has_fallen(self) -> bool:
        # Twice, for one time may be another program's.
        rates = [trial.rows_per_second for trial in self.trials]
        return len(rates) > 2 and max(rates[-2:]) * _GOOD_ENOUGH < max(rates[:-2])
