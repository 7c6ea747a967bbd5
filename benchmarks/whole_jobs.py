"""Speed of `predict_to_hdf5`, which writes HDF5, against the fastest that users write by hand.

    python benchmarks/whole_jobs.py

The peers are plain `predict`, which writes nothing, and compiled loops: one writes the same file
with h5py and waits for the disk, one keeps its results in memory. At its *best* size, each side has
the batch size that it is fastest with itself. All models are traced before.
"""

import inspect
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from example_models import cnn, lstm, mlp, random_rows, transformer
from measure import Figure, alternate, amount, compare, machine, show
from peers import Job, best_size, check_same_rows, compiled_loop, loop_in_memory, plain

from kerasext.inference import predict_to_hdf5

RUNS = amount(9, smallest=1)
SHORT_RUNS = amount(21, smallest=1)  # of jobs that take less than a second
ROWS, MANY_ROWS = amount(200_000, smallest=1000), amount(2_000_000, smallest=1000)
LARGER_MODEL_ROWS, TOKEN_ROWS = amount(16_384, smallest=256), amount(4096, smallest=256)
SIZES = (2048, 8192, 32_768, 65_536, 131_072)[: amount(5, smallest=1)]
SIZES_OF_LARGER_MODELS = (64, 128, 256, 512, 1024, 2048)[: amount(6, smallest=2)]
# The variants that this kerasext has, and what is said of them.
OURS = {"to_file": "", "to_file_xla": ", XLA"}
if "jit_compile" not in inspect.signature(predict_to_hdf5).parameters:
    del OURS["to_file_xla"]

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"
peer_path = Path(folder.name) / "by_hand.h5"


def remove() -> None:
    """Makes room: replacing a file takes time, and is no part of the job."""
    path.unlink(missing_ok=True)
    peer_path.unlink(missing_ok=True)


def to_file(model, rows, batch_size: int | str, **options) -> Job:
    """The job that is measured."""
    options |= {"batch_size": batch_size, "verbose": 0}
    return lambda: predict_to_hdf5(model, rows, path, **options).close()


class Jobs:
    """The jobs of a model, each also at its best batch size.

    Args:
        model: The model.
        rows: Array. Its input.
        sizes: Ints. The batch sizes to try.
    """

    def __init__(self, model, rows: np.ndarray, sizes: Iterable[int]) -> None:
        self.to_file = partial(to_file, model, rows)
        self.to_file_xla = partial(to_file, model, rows, jit_compile=True)
        self.plain = partial(plain, model, rows)
        self.compiled_loop = partial(compiled_loop, model, rows, path=peer_path)
        self.loop_in_memory = partial(loop_in_memory, model, rows)
        self._sizes = sizes
        remove()
        self.to_file(max(sizes))()
        self.compiled_loop(max(sizes))()
        check_same_rows(path, peer_path)

    def best(self, *names: str) -> tuple[dict[str, Job], dict[str, str]]:
        """Jobs at their best size, and these sizes as text."""
        sizes = {name: best_size(getattr(self, name), self._sizes, remove) for name in names}
        jobs = {name: getattr(self, name)(size) for name, size in sizes.items()}
        return jobs, {name: f"{size:,}" for name, size in sizes.items()}


def small_rows() -> Iterator[Figure]:
    """The MLP with some rows."""
    name = f"MLP, {ROWS:,} x 32"
    jobs = Jobs(mlp(), random_rows(ROWS, 32), SIZES)
    best, sizes = jobs.best(*OURS, "plain", "compiled_loop")

    slow = {variant: best[variant] for variant in OURS}
    slow |= {"plain_32": jobs.plain(32), "to_file_32": jobs.to_file(32)}
    seconds = alternate(RUNS, remove, **slow)
    for (variant, xla), target in zip(OURS.items(), (">= 100", ">= 120"), strict=False):
        case = f"{name}, batch {sizes[variant]}{xla}, against predict's 32: rate"
        yield compare(case, seconds, "plain_32", variant, "times", target=target)
    case = f"{name}, batch 32, against predict's 32: rate"
    yield compare(case, seconds, "plain_32", "to_file_32", "times", target=">= 6")

    best |= {f"{variant}_4096": getattr(jobs, variant)(4096) for variant in [*OURS, "plain"]}
    seconds = alternate(SHORT_RUNS, remove, **best)
    for (variant, xla), target in zip(OURS.items(), (">= 2.2", ">= 3"), strict=False):
        case = f"{name}, batch 4,096{xla}, against predict's 4,096: rate"
        yield compare(case, seconds, "plain_4096", f"{variant}_4096", "times", target=target)
    case = f"{name}, batch {sizes['to_file']}, against"
    peer = f"{case} predict's best {sizes['plain']}: rate"
    yield compare(peer, seconds, "plain", "to_file", "times", target=">= 2.2")
    peer = f"{case} a compiled loop with h5py, batch {sizes['compiled_loop']}: rate"
    yield compare(peer, seconds, "compiled_loop", "to_file", "times", target=">= 1.0")


def many_rows() -> Iterator[Figure]:
    """The MLP with many rows."""
    jobs = Jobs(mlp(), random_rows(MANY_ROWS, 32), SIZES)
    best, sizes = jobs.best("to_file", "compiled_loop", "loop_in_memory")
    seconds = alternate(SHORT_RUNS, remove, **best)
    case = f"MLP, {MANY_ROWS:,} x 32, batch {sizes['to_file']}, against a compiled loop"
    peer = f"{case} with h5py, batch {sizes['compiled_loop']}: rate"
    yield compare(peer, seconds, "compiled_loop", "to_file", "times", target=">= 1.1")
    peer = f"{case} in memory, batch {sizes['loop_in_memory']}: rate"
    yield compare(peer, seconds, "loop_in_memory", "to_file", "times", target=">= 0.85")


def larger_models() -> Iterator[Figure]:
    """Models that take longer than what is around them."""
    for name, model, count, shape, target in (
        ("CNN", cnn(), LARGER_MODEL_ROWS, (64, 64, 3), ">= 1.7"),
        ("LSTM", lstm(), LARGER_MODEL_ROWS, (32, 16), ">= 0.9"),
        ("transformer", transformer(), TOKEN_ROWS, (64, 32), ""),
    ):
        jobs = Jobs(model, random_rows(count, *shape), SIZES_OF_LARGER_MODELS)
        best, sizes = jobs.best("to_file", "plain", "compiled_loop")
        at_128 = {"to_file_128": jobs.to_file(128), "plain_128": jobs.plain(128)}
        seconds = alternate(RUNS, remove, **best, **at_128)
        name = f"{name}, {count:,} x {' x '.join(map(str, shape))}, batch"  # noqa: PLW2901
        case = f"{name} 128, against predict's 128: rate"
        yield compare(case, seconds, "plain_128", "to_file_128", "times", target=target)
        case = f"{name} {sizes['to_file']}, against predict's best {sizes['plain']}: rate"
        yield compare(case, seconds, "plain", "to_file", "times", target=">= 0.9")
        peer = f"a compiled loop with h5py, batch {sizes['compiled_loop']}"
        case = f"{name} {sizes['to_file']}, against {peer}: rate"
        yield compare(case, seconds, "compiled_loop", "to_file", "times", target=">= 0.95")


def figures() -> Iterator[Figure]:
    """Measures."""
    for job in (small_rows, many_rows, larger_models):
        yield from job()


if __name__ == "__main__":
    print(machine())
    show(figures())
