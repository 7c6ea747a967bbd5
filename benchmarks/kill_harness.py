"""Kills writers at random moments and looks at what they leave; for `kills.py` and the tests.

    python kill_harness.py write|predict

serves, on its standard input, requests to fork a process that writes a file, and to kill it. What
takes long to import is imported once, and a fork is at work within a few milliseconds.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from kerasext.storage import BackgroundWriter, PredictionFile, PredictionFileWriter, RaggedRows

STEPS_PER_LOOK = 20

_HANGS_AFTER = 120  # seconds; for a process that nobody kills
_REPORT = struct.Struct("<2q")  # rows that were committed, and the number of commits


# What is written: every value is a function of the row.


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a killed writer writes.

    Args:
        rows: Int. Rows of the whole file.
        step: Int. Rows of the largest step.
        outputs: Callable from row numbers to the mapping of outputs.
        pace: Float. Seconds that the caller waits after each step, as a model would compute.
        options: Mapping. Further arguments of `PredictionFileWriter`.
    """

    rows: int
    step: int
    outputs: Callable[[np.ndarray], Mapping[str, Any]]
    pace: float = 0.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """All rows of the file."""
        return dict(self.outputs(np.arange(self.rows)))


def _many_outputs(row: np.ndarray) -> Mapping[str, np.ndarray]:
    return {
        "labels": (row % 10).astype("i4"),
        "confidence": (row * 0.25).astype("f4"),
        "is_sure": row % 3 == 0,
        "number": row.astype("i8"),
        "head/labels": (row % 200).astype("u1"),
        "head/scores": (row[:, None] * [1, -1, 0.5]).astype("f4"),
        "head/deep/half": (row % 2048).astype("f2"),
        "wave": (row - 1j * row).astype("c8"),
    }


def _wide_rows(row: np.ndarray) -> Mapping[str, np.ndarray]:
    embedding = (row[:, None] * 31 + np.arange(25_000)).astype("f4")
    return {"embedding": embedding, "labels": row.astype("i4")}


def _small_chunks(row: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"a": (row[:, None] * 7 + np.arange(64)).astype("f4"), "b": row.astype("i8")}


def _strings(row: np.ndarray) -> Mapping[str, np.ndarray]:
    text = [f"row {number} " + "é" * (number % 20) for number in row]
    return {"text": np.array([t.encode() for t in text], dtype="S64"), "labels": row.astype("i4")}


def _integers(row: np.ndarray) -> Mapping[str, np.ndarray]:
    return {
        "counts": (row[:, None] * np.arange(1, 21) % 977).astype("i4"),
        "noise": (row[:, None] * np.arange(1, 9) * 2654435761 % 2**32).astype("u4"),
        "scores": (row[:, None] / np.arange(1, 11)).astype("f4"),
    }


def _rows_of_any_shape(row: np.ndarray) -> Mapping[str, np.ndarray | RaggedRows]:
    def flat(*axes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shapes = np.stack(axes, axis=1).astype("i8")
        sizes = shapes.prod(axis=1)
        ends = sizes.cumsum()
        place = np.arange(sizes.sum()) - np.repeat(ends - sizes, sizes)
        return np.repeat(row, sizes), place, shapes

    of, place, shapes = flat(row * 7 % 40 * (row % 5 > 0))
    tokens = RaggedRows((of * 31 + place).astype("i4"), shapes)
    of, place, shapes = flat(row % 9, np.full_like(row, 4), row % 3 + 1)
    boxes = RaggedRows((of * 0.5 - place).astype("f4"), shapes)
    return {"head/tokens": tokens, "boxes": boxes, "labels": row.astype("i4")}


LAYOUTS = {
    "many outputs of tiny rows": Layout(30_000, 60, _many_outputs, pace=2e-4),
    "wide rows": Layout(400, 8, _wide_rows, pace=5e-4),
    # An expectation that is far exceeded: chunks of 16 KiB, several of them in each commit.
    "many small chunks": Layout(20_000, 300, _small_chunks, 2e-3, {"expected_rows": 300}),
    "strings": Layout(20_000, 60, _strings, pace=4e-4),
    "compressed": Layout(30_000, 100, _integers, pace=4e-4, options={"compression": "gzip"}),
    "compressed small chunks": Layout(
        20_000, 200, _integers, 2e-3, {"compression": "gzip", "expected_rows": 200}
    ),
    "rows of any shape": Layout(
        20_000,
        100,
        _rows_of_any_shape,
        1e-3,
        {"ragged": True, "expected_rows": 200, "compression": {"boxes": "gzip", "labels": "gzip"}},
    ),
}


# The process that is killed.


def write(
    path: str,
    layout: str,
    *,
    rows: int | None = None,
    commit_interval: float = 0.01,
    seed: int = 0,
    waits: bool = False,
    looks: str | None = None,
) -> None:
    """Writes a layout, or goes on with what a killed process has left of it.

    Args:
        path: String. The file.
        layout: String. One of `LAYOUTS`.
        rows: Int. Rows of the file, if not all of the layout.
        commit_interval: Float. Seconds between commits.
        seed: Int. Of the sizes of the steps.
        waits: Bool. Whether to wait after each step until it is committed.
        looks: String. A file that a reader makes longer by a byte whenever it has looked. The
            writer waits for the next look after every `STEPS_PER_LOOK` steps.
    """
    assert not {"keras", "tensorflow"} & sys.modules.keys(), "storage has imported Keras"
    given = LAYOUTS[layout]
    last = given.rows if rows is None else rows
    writer = PredictionFileWriter(path, mode="resume", **given.options)
    if writer.is_complete:
        writer.close()
        return
    background = BackgroundWriter(
        writer, to_arrays=dict, queue_bytes=1 << 20, commit_interval=commit_interval
    )
    sizes = random.Random(seed)  # noqa: S311 - not for secrets
    row, known = max(writer.rows - 3, 0), min(writer.rows, 3)
    for steps in itertools.count(1):
        if not (row < last or known):
            break
        end = min(row + known + sizes.randint(1, given.step), last)
        background.append(given.outputs(np.arange(row, end)), end - row, known=known)
        row, known = end, 0
        while waits and _committed() < row:
            time.sleep(1e-4)
        while looks and os.stat(looks).st_size < steps // STEPS_PER_LOOK:  # noqa: PTH116
            time.sleep(1e-4)
        time.sleep(given.pace)
    background.finish()


class Predictions:
    """The run of `predict` that is killed: about a second, with the same model every time."""

    ROWS, FEATURES, BATCH = 3_000, 16, 8
    SPAN = 2.0
    """Seconds that it takes, roughly, and that a killer may wait."""

    @classmethod
    def write(
        cls, path: str, *, as_job: bool, pace: float = 0.002, commit_interval: float = 0.02
    ) -> None:
        """Predicts, or goes on with what a killed process has left.

        Args:
            path: String. The file.
            as_job: Bool. Whether by `predict_to_hdf5`, and not by `predict` with a writer.
            pace: Float. Seconds that each batch takes besides its computation.
            commit_interval: Float. Seconds between commits.
        """
        import keras  # noqa: PLC0415 - the parent writes and reads without it

        from kerasext.callbacks import HDF5PredictionWriter  # noqa: PLC0415
        from kerasext.inference import predict_to_hdf5  # noqa: PLC0415
        from kerasext.models import ClassifierModel  # noqa: PLC0415

        random_ = np.random.default_rng(7)
        inputs = keras.Input((cls.FEATURES,))
        hidden = keras.layers.Dense(32, activation="tanh")(inputs)
        model = ClassifierModel(inputs, keras.layers.Dense(10, activation="softmax")(hidden))
        model.set_weights(
            [random_.normal(size=w.shape).astype("float32") for w in model.get_weights()]
        )
        rows = random_.normal(size=(cls.ROWS, cls.FEATURES)).astype("float32")

        class Waits(keras.callbacks.Callback):
            def on_predict_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
                time.sleep(pace)

        options = {"mode": "resume", "commit_interval": commit_interval}
        given = {"batch_size": cls.BATCH, "verbose": 0}
        if as_job:
            predict_to_hdf5(model, rows, path, callbacks=[Waits()], **given, **options).close()
        else:
            writer = HDF5PredictionWriter(path, accumulate=False, **options)
            model.predict(rows, callbacks=[Waits(), writer], **given)


_report_fd = -1


def _report_commits(report: str, kill_at: int | None) -> None:
    """Keeps, in a file that a kill does not touch, what this process knows to be committed.

    Once that are `kill_at` rows, the process is killed.
    """
    global _report_fd  # noqa: PLW0603 - one process, one report
    _report_fd = os.open(report, os.O_RDWR | os.O_CREAT, 0o666)
    commit, commits = PredictionFileWriter.commit, itertools.count(1)

    def reporting(self: PredictionFileWriter) -> None:
        commit(self)
        os.pwrite(_report_fd, _REPORT.pack(self.rows, next(commits)), 0)
        if kill_at is not None and self.rows >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    PredictionFileWriter.commit = reporting  # type: ignore[method-assign]


def _committed() -> int:
    return _read_report(_report_fd)[0]


def _read_report(fd: int) -> tuple[int, int]:
    content = os.pread(fd, _REPORT.size, 0)
    rows, commits = _REPORT.unpack(content) if content else (0, 0)
    return rows, commits


# The server that forks it.


def _serve(job: Callable[..., None]) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a job prints is no reply
    for line in sys.stdin:
        request = json.loads(line)
        kill_after = request.pop("kill_after")
        reporting = request.pop("report"), request.pop("kill_at")
        pid = os.fork()
        if not pid:
            _run_and_exit(job, reporting, request)
        pidfd = os.pidfd_open(pid)
        ended, _, _ = select.select(
            [pidfd], [], [], _HANGS_AFTER if kill_after is None else kill_after
        )
        if not ended:  # not waited for yet: the number is still its own
            os.kill(pid, signal.SIGKILL)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        hung = kill_after is None and not ended
        print("a hang" if hung else status, file=replies, flush=True)


def _run_and_exit(
    job: Callable[..., None], reporting: tuple[str, int | None], request: dict[str, Any]
) -> None:
    status = 1
    try:
        _report_commits(*reporting)
        job(**request)
        status = 0
    except BaseException:  # noqa: BLE001 - the status tells
        traceback.print_exc()
    finally:
        os._exit(status)


class Server:
    """Forks processes that write, one at a time.

    Args:
        job: String. `"write"` for the storage alone, `"predict"` for a model.
        folder: Path. Where the reports are kept; not the one that is written to.
    """

    def __init__(self, job: str, folder: Path) -> None:
        self.job = job
        self._report = folder / "report"
        self._is_running = False
        self._process = subprocess.Popen(
            [sys.executable, __file__, job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A fork has none of the threads that the libraries start.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    def start(
        self,
        path: Path,
        *,
        kill_after: float | None = None,
        kill_at: int | None = None,
        **request: Any,
    ) -> None:
        """Forks a process that writes, to be killed after so many seconds or rows.

        Args:
            path: Path. The file.
            kill_after: Float. Seconds, or `None` to let it come to its end.
            kill_at: Int. Rows that are committed when it is killed.
            **request: Further arguments of `write` or of `Predictions.write`.
        """
        if self._is_running:  # whoever started it has failed before the end
            self._process.stdout.readline()  # type: ignore[union-attr]
        self._is_running = True
        self._report.unlink(missing_ok=True)
        request |= {"path": str(path), "report": str(self._report)}
        request |= {"kill_after": kill_after, "kill_at": kill_at}
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)

    def wait(self) -> int:
        """Waits for the end of the process.

        Returns:
            0, or -9 if it was killed.

        Raises:
            RuntimeError: If it failed.
        """
        assert self._process.stdout is not None
        status = self._process.stdout.readline().strip()
        self._is_running = False
        if status not in {"0", "-9"}:
            raise RuntimeError(f"The writing process ended with {status or 'its server'}")
        return int(status)

    def run(self, path: Path, **request: Any) -> int:
        """`start` and `wait`."""
        self.start(path, **request)
        return self.wait()

    @property
    def reported(self) -> tuple[int, int]:
        """Rows that the process knew to be committed, and its number of commits."""
        if not self._report.exists():
            return 0, 0
        with self._report.open("rb") as report:
            return _read_report(report.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_HANGS_AFTER)
        self._process.stdout.close()


# The look at what is left.


@dataclasses.dataclass
class Outcome:
    """What was found after the kills."""

    kills: int = 0
    before_the_file: int = 0
    """Kills before the file had its name."""
    before_a_row: int = 0
    midway: int = 0
    """Kills with some of the rows committed, and not all."""
    files: int = 0
    """Files that came to be complete."""
    not_opened: int = 0
    rows_lost: int = 0
    wrong_values: int = 0
    left_over: list[str] = dataclasses.field(default_factory=list)
    """Names of what else lay in the folder of a complete file."""
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost."""
        return not (
            self.not_opened or self.rows_lost or self.wrong_values or self.left_over
        ) and bool(self.files)

    def add(self, other: Outcome) -> None:
        """Adds what was found elsewhere."""
        for field in dataclasses.fields(self):
            mine, others = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, mine + others)

    def look(self, path: Path, expected: Mapping[str, Any], known: int) -> int:
        """Looks at a file after a kill.

        Args:
            path: Path. The file.
            expected: Mapping from output name to all its rows.
            known: Int. Rows that were committed before.

        Returns:
            Rows that are committed now.
        """
        rows = 0
        if not path.exists():
            self.before_the_file += known == 0
        else:
            try:
                rows, found = _with_h5py(path)
                self.compare(path, found, rows, expected)
                with PredictionFile(path) as predictions:
                    found = {name: output[:] for name, output in predictions.items()}
                    self.compare(path, found, predictions.rows, expected)
                    rows = min(rows, predictions.rows)
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                self.not_opened += 1
                self.problems.append(f"{path}: {error!r}")
                return known
            all_rows = len(next(iter(expected.values())))
            self.before_a_row += rows == 0
            self.midway += 0 < rows < all_rows
        if rows < known:
            self.rows_lost += known - rows
            self.problems.append(f"{path}: {rows} rows of {known}")
        return rows

    def look_at_the_end(self, path: Path, expected: Mapping[str, Any]) -> None:
        """Looks at a file whose writer came to its end, and at what lies beside it."""
        all_rows = len(next(iter(expected.values())))
        try:
            rows, found = _with_h5py(path, swmr=False)
            self.compare(path, found, rows, expected)
            with PredictionFile(path) as predictions:
                rows = min(rows, predictions.rows)
                if rows != all_rows or not predictions.complete:
                    self.rows_lost += all_rows - rows
                    self.wrong_values += not predictions.complete
                    self.problems.append(f"{path} at the end: {predictions}")
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            self.not_opened += 1
            self.problems.append(f"{path} at the end: {error!r}")
        self.left_over += sorted({other.name for other in path.parent.iterdir()} - {path.name})
        self.files += 1

    def compare(
        self,
        path: Path,
        found: Mapping[str, Any],
        rows: int,
        expected: Mapping[str, Any],
    ) -> None:
        """Compares the rows that were read from a file with those that it should have."""
        if found.keys() != expected.keys():
            self.wrong_values += 1
            self.problems.append(f"{path}: outputs {sorted(found)}")
            return
        for name, array in found.items():
            right = expected[name][:rows]
            if isinstance(right, RaggedRows):
                self._compare_ragged(path, name, array, list(right))
                continue
            stored = array
            if array.dtype.kind == "U":
                # `encode` of no rows is no text in NumPy 1.
                stored = np.char.encode(array, "utf-8").astype(right.dtype)
            same_dtype = stored.dtype == right.dtype or stored.dtype.kind == "S"
            if not same_dtype or not rows == len(stored) == len(right):
                self.wrong_values += 1
            elif not np.array_equal(stored, right):
                self.wrong_values += int(np.sum(stored != right))
            else:
                continue
            self.problems.append(f"{path}: {name!r} among {rows} rows")

    def _compare_ragged(
        self, path: Path, name: str, found: list[np.ndarray], right: list[np.ndarray]
    ) -> None:
        wrong = abs(len(found) - len(right)) + sum(
            stored.dtype != row.dtype or not np.array_equal(stored, row)
            for stored, row in zip(found, right, strict=False)
        )
        if wrong:
            self.wrong_values += wrong
            self.problems.append(f"{path}: {name!r} among {len(right)} rows")


def _with_h5py(path: Path, *, swmr: bool = True) -> tuple[int, dict[str, Any]]:
    """The committed rows, read without this library."""
    found: dict[str, Any] = {}
    with h5py.File(path, "r", swmr=swmr, locking=False) as file:
        rows = int(file["_kerasext/record"]["rows"])

        def visit(name: str, node: h5py.Group | h5py.Dataset) -> None:
            if "ragged_axes" in node.attrs:
                splits = node["row_splits"][: rows + 1]
                values = np.split(node["values"][: splits[-1]], splits[1:-1])[:rows]
                if "row_shapes" in node:
                    shapes = node["row_shapes"][:rows]
                    values = [row.reshape(shape) for row, shape in zip(values, shapes, strict=True)]
                found[name] = values
            elif "ragged_axes" in node.parent.attrs or name.startswith("_kerasext"):
                pass
            elif isinstance(node, h5py.Dataset) and not node.is_scale:
                found[name] = node[:rows]

        file.visititems(visit)
    return rows, found


def kill_and_resume(
    server: Server,
    folder: Path,
    expected: Mapping[str, Any],
    *,
    kills: int,
    seed: int = 0,
    span: float = 0.05,
    **request: Any,
) -> Outcome:
    """Kills writers at random moments, each going on with what the last has left.

    Files are written one after the other until there were enough kills, one of them midway; the
    last one is then left to come to its end. A file with which no writer can go on ends it all, and
    stays in the folder.

    Args:
        server: The server.
        folder: Path. An empty folder.
        expected: Mapping from output name to all its rows.
        kills: Int. Number of kills.
        seed: Int. Of the moments.
        span: Float. Seconds, the latest moment of the first kill; then it adapts, so that some
            processes come to their end and some don't come to a row.
        **request: Further arguments of `Server.run`.
    """
    outcome = Outcome()
    moments = random.Random(seed)  # noqa: S311 - not for secrets
    for number in itertools.count():
        path = folder / str(number) / "predictions.h5"
        path.parent.mkdir()
        rows = 0
        while True:
            # Squared, for much happens in the first milliseconds: the file is made, or repaired.
            enough = outcome.kills >= kills and outcome.midway
            after = None if enough else span * moments.random() ** 2
            try:
                status = server.run(path, kill_after=after, **request)
            except RuntimeError as error:  # it could not go on with what the last one has left
                outcome.not_opened += 1
                outcome.problems.append(f"{path} after {outcome.kills} kills: {error}")
                return outcome
            if status == 0:
                span *= 0.8
                break
            outcome.kills += 1
            now = outcome.look(path, expected, max(rows, server.reported[0]))
            span *= 1.1 if now == rows else 1.0
            rows = now
        outcome.look_at_the_end(path, expected)
        if not outcome.left_over:
            path.unlink()
            path.parent.rmdir()
        if outcome.kills >= kills and outcome.midway:
            return outcome
    raise AssertionError


if __name__ == "__main__":
    if sys.argv[1] == "predict":
        import keras  # noqa: F401 - before the forks

        import kerasext.inference
        import kerasext.models  # noqa: F401
    _serve({"write": write, "predict": Predictions.write}[sys.argv[1]])
