"""Kills of writers at random moments, and what was lost: nothing, or this script fails.

python benchmarks/kills.py [kills of the storage] [kills of predict]
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kill_harness import LAYOUTS, Outcome, Predictions, Server, kill_and_resume
from measure import Figure, amount, machine, show

from kerasext.storage import PredictionFile

INTERVALS = (0.005, 0.01, 0.02, 0.05)[: amount(4, smallest=1)]
# Of the storage and of `predict`; more if this script runs alone.
KILLS = amount(240, smallest=14), amount(10, smallest=2)
KILLS_ALONE = amount(2000, smallest=14), amount(100, smallest=2)


def describe(name: str, outcome: Outcome, seconds: float) -> None:
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


def storage(folder: Path, kills: int) -> Outcome:
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
                kills=(kills + number) // len(runs),
                seed=number,
                layout=layout,
                commit_interval=interval,
            )
            name = f"{layout}, a commit every {interval * 1000:.0f} ms"
            describe(name, outcome, time.monotonic() - began)
            total.add(outcome)
    return total


def predict(folder: Path, kills: int) -> Outcome:
    """Kills processes in `model.predict` with a writer, and in `predict_to_hdf5`."""
    total = Outcome()
    with Server("predict", folder) as server:
        for as_job, name in ((False, "predict"), (True, "predict_to_hdf5")):
            began = time.monotonic()
            files = folder / name
            files.mkdir()
            whole = folder / f"{name}.h5"
            server.run(whole, as_job=as_job)
            with PredictionFile(whole) as predictions:
                expected = {name: output[:] for name, output in predictions.items()}
            outcome = kill_and_resume(
                server,
                files,
                expected,
                kills=kills // 2,
                span=Predictions.SPAN,
                as_job=as_job,
            )
            describe(name, outcome, time.monotonic() - began)
            total.add(outcome)
    return total


def figures(storage_kills: int = KILLS[0], predict_kills: int = KILLS[1]) -> Iterator[Figure]:
    """Kills, and counts what was lost.

    Raises:
        AssertionError: If anything was lost.
    """
    total = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        for kills, run in ((storage_kills, storage), (predict_kills, predict)):
            if kills:
                total.add(run(Path(folder), kills))
    for name, number, unit in (
        ("not opened", total.not_opened, "files"),
        ("lost", total.rows_lost, "committed rows"),
        ("wrong", total.wrong_values, "values"),
        ("left over", len(total.left_over), "files"),
    ):
        yield Figure(f"{total.kills:,} kills, {name}", number, unit, "<= 0")
    if not total.is_good:
        raise AssertionError("a kill must lose nothing; the lines above name the files")


if __name__ == "__main__":
    kills = [int(argument) for argument in sys.argv[1:]] or KILLS_ALONE
    print(machine())
    show(figures(*kills))
