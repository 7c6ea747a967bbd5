"""What the benchmarks share: alternating timed runs, memory of a process, the machine."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np

Measured = dict[str, list[float]]


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
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[of], strict=True))


def rounded(seconds: Measured) -> Measured:
    """The seconds to two digits, for printing."""
    return {name: [round(value, 2) for value in values] for name, values in seconds.items()}


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
    """What the figures were measured on."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores of {cpu}, Python {sys.version.split()[0]}, Keras "
        f"{version('keras')}, TensorFlow {version('tensorflow')}, NumPy {np.__version__}, h5py "
        f"{h5py.__version__} (HDF5 {h5py.version.hdf5_version})"
    )
