"""Kills of writers at random moments, and what was lost: nothing, or this script fails.

python benchmarks/kills.py [kills of the storage] [kills of predict]
"""

import sys
import tempfile
import time
from pathlib import Path

import h5py
from kill_harness import LAYOUTS, Outcome, Predictions, Server, kill_and_resume

from kerasext.storage import PredictionFile

STORAGE_KILLS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
PREDICT_KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 100
INTERVALS = (0.005, 0.01, 0.02, 0.05)


def show(name: str, outcome: Outcome, seconds: float) -> None:
    """Prints what was found."""
    print(
        f"{name}: {outcome.kills} kills ({outcome.before_the_file} before there was a file, "
        f"{outcome.before_a_row} before a row, {outcome.midway} midway), {outcome.files} files "
        f"completed, in {seconds:.0f} s: {outcome.not_opened} did not open, {outcome.rows_lost} "
        f"committed rows lost, {outcome.wrong_values} wrong values, "
        f"{len(outcome.left_over)} files left over"
    )
    for problem in outcome.problems:
        print(f"  {problem}")


def storage(folder: Path) -> Outcome:
    """Kills processes that write without Keras."""
    total = Outcome()
    runs = [(layout, interval) for layout in LAYOUTS for interval in INTERVALS]
    with Server("write", folder) as server:
        for number, (layout, interval) in enumerate(runs):
            began = time.monotonic()
            files = folder / f"storage{number}"
            files.mkdir()
            outcome = kill_and_resume(
                server,
                files,
                LAYOUTS[layout].content(),
                # as many as divide evenly, and one of the rest
                kills=(STORAGE_KILLS + number) // len(runs),
                seed=number,
                layout=layout,
                commit_interval=interval,
            )
            name = f"{layout}, a commit every {interval * 1000:.0f} ms"
            show(name, outcome, time.monotonic() - began)
            total.add(outcome)
    return total


def predict(folder: Path) -> Outcome:
    """Kills processes in `model.predict`."""
    began = time.monotonic()
    files = folder / "predict"
    files.mkdir()
    with Server("predict", folder) as server:
        server.run(folder / "whole.h5")
        with PredictionFile(folder / "whole.h5") as whole:
            expected = {name: output[:] for name, output in whole.items()}
        outcome = kill_and_resume(
            server, files, expected, kills=PREDICT_KILLS, span=Predictions.SPAN
        )
    show("predict", outcome, time.monotonic() - began)
    return outcome


total = Outcome()
with tempfile.TemporaryDirectory() as folder:
    print(f"h5py {h5py.__version__} (HDF5 {h5py.version.hdf5_version})")
    began = time.monotonic()
    for kills, run in ((STORAGE_KILLS, storage), (PREDICT_KILLS, predict)):
        if kills:
            total.add(run(Path(folder)))
show("all", total, time.monotonic() - began)
sys.exit(not total.is_good)
