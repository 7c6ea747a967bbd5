"""What a report of many rows costs.

Rows of 10 classes with ids and targets; the page has thumbnails of the least confident ones. Memory
is all that the process which writes the report has, with the packages that it loads.

    python benchmarks/report.py
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import Figure, amount, in_own_process, machine, resident, show

from kerasext import PredictionFile
from kerasext.report import write_report
from kerasext.storage import PredictionFileWriter

ROWS = amount(1_000_000, smallest=20_000)
CLASSES = 10
STEP = 10_000
RUNS = amount(3, smallest=1)
SIDE = 96  # of images

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"
images_path = path.with_name("images.npy")


def write_files() -> None:
    """Writes the predictions, and images that take no room on the disk where they are black."""
    random = np.random.default_rng(0)
    writer = PredictionFileWriter(path, class_names=[f"class {i}" for i in range(CLASSES)])
    for start in range(0, ROWS, STEP):
        scores = random.exponential(size=(STEP, CLASSES)) ** 3
        probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype("f4")
        labels = probabilities.argmax(axis=1).astype("i4")
        confidence = probabilities.max(axis=1)
        is_right = random.random(STEP) < confidence
        targets = np.where(is_right, labels, random.integers(0, CLASSES, STEP)).astype("i4")
        ids = np.array([f"images/{row:07d}.png" for row in range(start, start + STEP)], "S64")
        writer.append(
            {
                "probabilities": probabilities,
                "labels": labels,
                "confidence": confidence,
                "targets": targets,
                "ids": ids,
            }
        )
    writer.finish()
    shape = (ROWS, SIDE, SIDE, 3)
    images = np.lib.format.open_memmap(images_path, "w+", "u1", shape)
    with PredictionFile(path) as predictions:
        least = np.argsort(predictions["confidence"][:])[:20]
    for row in least:
        images[row] = random.integers(0, 256, (SIDE, SIDE, 3), "u1")


def write_one(what: str, source: Path) -> None:
    """Writes the report, and prints seconds, MiB at the peak, or MiB of the page."""
    page = source.with_suffix(".html")
    start = time.perf_counter()
    with PredictionFile(source) as predictions:
        write_report(predictions, page, images=np.load(images_path_of(source), mmap_mode="r"))
    seconds = time.perf_counter() - start
    size = page.stat().st_size / 2**20
    print({"seconds": seconds, "memory": resident("VmHWM"), "size": size}[what])


def images_path_of(source: Path) -> Path:
    """Where the images of a prediction file are."""
    return source.with_name(images_path.name)


def figures() -> Iterator[Figure]:
    """Measures."""
    write_files()
    case = f"report of {ROWS:,} rows with targets and thumbnails"
    runs = [in_own_process(__file__, "seconds", str(path)) for _ in range(RUNS)]
    yield Figure(f"{case}: time", float(np.median(runs)), "s", "< 10", {"seconds": runs})
    peak = in_own_process(__file__, "memory", str(path))
    yield Figure(f"{case}: resident memory at its peak", peak, "MiB", "< 500")
    yield Figure(f"{case}: the page", in_own_process(__file__, "size", str(path)), "MiB", "< 2")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_one(sys.argv[1], Path(sys.argv[2]))
    else:
        print(machine())
        show(figures())
