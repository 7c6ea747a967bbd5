"""Runs the benchmarks beside each other, or the comparison on a model and rows of your own.

    python benchmarks/run.py [--smallest] [--only NAME ...] [--json FILE]
    python benchmarks/run.py --model MODEL --input ROWS [--json FILE]

MODEL is a `.keras` file, ROWS an `.npy` file. The targets are for the whole library on 2 cores of a
shared machine, with TensorFlow; another machine may miss them.

`--smallest` runs each benchmark at its smallest size, all of them in about two minutes of CPU time.
This shows whether they still work. Their figures mean nothing and are not compared with the
targets. A single script does the same with `BENCHMARK_SIZE=smallest` in the environment.
"""

import argparse
import importlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from measure import SIZE_VARIABLE, Figure, alternate, machine, ratio, show

import kerasext.models  # noqa: F401 - registers its classes, for models saved as one of them
from kerasext.inference import predict_to_hdf5, tune_batch_size

# Every other script here has `figures`.
NOT_BENCHMARKS = {"run", "measure", "kill_harness", "peers", "example_models"}
BENCHMARKS = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - NOT_BENCHMARKS)
OWN_RUNS = 3  # nobody knows how long they take


def own_job(model_path: str, rows_path: str) -> Iterator[Figure]:
    """Plain `predict` at its default and at a tuned batch size, and `predict_to_hdf5`."""
    model, rows = keras.saving.load_model(model_path), np.load(rows_path, mmap_mode="r")
    tuned = tune_batch_size(model, rows).batch_size
    yield Figure("tuned batch size", tuned, "rows")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.h5"
        seconds = alternate(
            OWN_RUNS,
            lambda: path.unlink(missing_ok=True),
            plain=lambda: model.predict(rows, verbose=0),
            plain_tuned=lambda: model.predict(rows, batch_size=tuned, verbose=0),
            to_file=lambda: predict_to_hdf5(model, rows, path, verbose=0).close(),
        )
    for name, peer in (("32", "plain"), (f"{tuned:,}", "plain_tuned")):
        faster = ratio(seconds, peer, "to_file")
        case = f"rate of predict_to_hdf5, against predict's batch {name}"
        yield Figure(case, faster, "times", runs=seconds)


def as_table(found: dict[str, list[Figure]]) -> str:
    """The values and their targets, aligned."""
    lines = []
    verdicts = {None: "", True: "met", False: "MISSED"}
    for benchmark, figures in found.items():
        lines.append(benchmark)
        lines += [
            f"  {figure.rounded:>8}  {figure.target:>8}  {verdicts[figure.is_met]:6}  "
            f"{figure.name}, {figure.unit_and_spread}"
            for figure in figures
        ]
    return "\n".join(lines)


def as_json(found: dict[str, list[Figure]]) -> list[dict[str, Any]]:
    """The figures with all runs."""
    return [
        {"benchmark": benchmark, **figure._asdict(), "is_met": figure.is_met}
        for benchmark, figures in found.items()
        for figure in figures
    ]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smallest", action="store_true")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, metavar="NAME")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--input")
    arguments = parser.parse_args()
    if (arguments.model is None) != (arguments.input is None):
        parser.error("--model and --input belong together")
    if arguments.smallest:
        if arguments.model:
            parser.error("--smallest is for the benchmarks; give --model fewer rows")
        os.environ[SIZE_VARIABLE] = "smallest"  # before the imports, which read it
    if arguments.model:
        benchmarks = {"own": own_job(arguments.model, arguments.input)}
    else:
        benchmarks = {name: importlib.import_module(name).figures() for name in arguments.only}

    on = machine()
    print(on)
    found: dict[str, list[Figure]] = {}
    for name, figures in benchmarks.items():
        print(f"\n{name}", flush=True)
        began = time.perf_counter()
        found[name] = show(figures)
        print(f"{name} took {time.perf_counter() - began:.1f} s", flush=True)
        if arguments.json:  # each time, for the next one may fail
            arguments.json.write_text(json.dumps({"machine": on, "figures": as_json(found)}))
    print(f"\n{as_table(found)}")


if __name__ == "__main__":
    main()
