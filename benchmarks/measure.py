"""What the benchmarks share: their figures, alternating timed runs, memory, the machine."""

import operator
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

Measured = dict[str, list[float]]

SIZE_VARIABLE = "BENCHMARK_SIZE"  # of the environment, so that subprocesses know it too

_COMPARISONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def is_smallest() -> bool:
    """Whether the benchmarks run at their smallest size, which shows only that they work."""
    # Read at each call, because `run.py` sets it after it has imported this module.
    return os.environ.get(SIZE_VARIABLE) == "smallest"


def amount(full: int, *, smallest: int) -> int:
    """Returns `full`, or `smallest` if the benchmarks run at their smallest size."""
    return smallest if is_smallest() else full


class Figure(NamedTuple):
    """What a benchmark found.

    Attributes:
        name: String. What was measured.
        value: Float. The median, where there are several runs.
        unit: String. Of the value.
        target: String. What it should be, such as `">= 2"`; empty where it only informs.
        runs: Dict from variant to what each of its runs measured, if there are several.
        spread: The smallest and the largest value of a run, if they are known.
    """

    name: str
    value: float
    unit: str
    target: str = ""
    runs: Measured | None = None
    spread: tuple[float, float] | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the value meets the target; `None` without one, and at the smallest size."""
        if not self.target or is_smallest():
            return None
        comparison, bound = self.target.split()
        return bool(_COMPARISONS[comparison](self.value, float(bound)))  # not NumPy's

    @property
    def rounded(self) -> str:
        """The value to two digits, without any where it is large or whole."""
        return _rounded(self.value)

    @property
    def unit_and_spread(self) -> str:
        """The unit, and between which values the runs were."""
        if self.spread is None:
            return self.unit
        return f"{self.unit} ({' to '.join(map(_rounded, self.spread))} by run)"

    def __str__(self) -> str:
        verdict = {None: "", True: f", {self.target} met", False: f", {self.target} MISSED"}
        return f"{self.name}: {self.rounded} {self.unit_and_spread}{verdict[self.is_met]}"


def _rounded(value: float) -> str:
    digits = 2 if abs(value) < 10 and value % 1 else 0
    return f"{value:,.{digits}f}"


def show(figures: Iterable[Figure]) -> list[Figure]:
    """Prints figures as they come."""
    shown = []
    for figure in figures:
        print(figure, flush=True)
        shown.append(figure)
    return shown


def alternate(
    runs: int, before: Callable[[], object] = lambda: None, **variants: Callable[[], object]
) -> Measured:
    """Seconds of each variant, run in turn after one warm-up, so that a slow minute hits all.

    `before` is called before each of them, and not timed.
    """
    for variant in variants.values():
        before()
        variant()
    seconds: Measured = {name: [] for name in variants}
    for _ in range(runs):
        for name, variant in variants.items():
            before()
            start = time.perf_counter()
            variant()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Measured, name: str, of: str) -> float:
    """Median over the pairs of runs of how long one variant took, in units of the other."""
    return statistics.median(_ratios(seconds, name, of))


def compare(
    case: str, seconds: Measured, name: str, of: str, unit: str, *, target: str = ""
) -> Figure:
    """The figure of a `ratio`, with its spread over the pairs of runs."""
    ratios = _ratios(seconds, name, of)
    runs = {variant: seconds[variant] for variant in (name, of)}
    median = statistics.median(ratios)
    return Figure(case, median, unit, target, runs, (min(ratios), max(ratios)))


def _ratios(seconds: Measured, name: str, of: str) -> list[float]:
    return [a / b for a, b in zip(seconds[name], seconds[of], strict=True)]


def in_own_process(script: str, *arguments: str) -> float:
    """The number that a script prints when it is started with these arguments."""
    command = [sys.executable, script, *arguments]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def alternate_processes(runs: int, script: str, *variants: str) -> Measured:
    """What each variant measures, in turn, each time in a process of its own."""
    measured: Measured = {name: [] for name in variants}
    for _ in range(runs):
        for name in variants:
            measured[name].append(in_own_process(script, name))
    return measured


def peak_growth(run: Callable[[], object]) -> float:
    """MiB from the resident memory of this process before a run to its peak in the run."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(what: str) -> float:
    """MiB of resident memory now (`VmRSS`) or at its peak (`VmHWM`)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(what)) / 1024


def machine() -> str:
    """What the figures were measured on, and a warning if they mean nothing."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    warning = ". Smallest sizes: the figures mean nothing" if is_smallest() else ""
    return (
        f"{os.cpu_count()} cores of {cpu}, Python {sys.version.split()[0]}, Keras "
        f"{version('keras')}, TensorFlow {version('tensorflow')}, NumPy {np.__version__}, h5py "
        f"{h5py.__version__} (HDF5 {h5py.version.hdf5_version}){warning}"
    )
