"""Losses of power at random moments, replayed from recorded writes, and what is left of a file.

    python benchmarks/power_loss.py [crash points with fsync=True] [crash points with fsync=False]

A process writes a file, and a small library records each of its writes, truncations, syncs and
renames; it needs Linux and a C compiler (`cc`). For each crash point a file is made of what was
synced before, and of a random part of what was written since: each page of 4 KiB has the state
after any number of its writes, the file any of its lengths since, and a rename may be lost until
its folder is synced. Disks keep far more than that. The file is read, verified and resumed.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from kill_harness import LAYOUTS, Outcome

from kerasext.storage import PredictionFile, PredictionFileWriter

PAGE = 4096
HANGS_AFTER = 30  # seconds
STEPS, MORE = 40, 4
TOLD, FINISHED = ord("c"), ord("f")
RECORD = struct.Struct("<2Q2q")
NAME = "predictions.h5"
COMPILER = shutil.which("cc") or "cc"
_FOLDER = Path(__file__).parent
_CHUNKS = {"expected_rows": 200}


# The process whose writes are recorded.


def record(folder: Path, log: Path, library: Path, layout: str, *, fsync: bool, seed: int) -> None:
    """Writes a file in a process of its own, with a record of all that it does."""
    subprocess.run(
        [sys.executable, __file__, "write", str(folder), layout, str(int(fsync)), str(seed)],
        check=True,
        env={
            **os.environ,
            "LD_PRELOAD": str(library),
            "RECORDED_FOLDER": str(folder),
            "RECORDED_LOG": str(log),
            "OPENBLAS_NUM_THREADS": "1",
        },
    )


def write(folder: Path, layout: str, *, fsync: bool, seed: int) -> None:
    """What that process does: steps of random size, and a record of each commit that returned."""
    given = LAYOUTS[layout]
    fd = os.open(os.environ["RECORDED_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    random_ = random.Random(seed)  # noqa: S311 - not for secrets
    options = {**_CHUNKS, **given.options, "fsync": fsync}
    writer = PredictionFileWriter(folder / NAME, **options)
    row = 0
    for _ in range(STEPS):
        end = row + random_.randint(1, given.step)
        writer.append(given.outputs(np.arange(row, end)))
        row = end
        if random_.random() < 0.7:
            writer.commit()
            os.write(fd, RECORD.pack(TOLD, 0, writer.rows, 0))
    writer.finish()
    os.write(fd, RECORD.pack(FINISHED, 0, writer.rows, 0))


def build_library(folder: Path) -> Path:
    """Compiles what records the writes."""
    library = folder / "recorded_writes.so"
    source = _FOLDER / "recorded_writes.c"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


# The disk.


@dataclasses.dataclass(frozen=True)
class Operation:
    """One call of the recorded process; `kind` is a letter of `recorded_writes.c`."""

    kind: str
    file: int
    offset: int
    content: bytes = b""


def read_log(log: Path) -> list[Operation]:
    """All that was recorded, in order."""
    content, place, found = log.read_bytes(), 0, []
    while place < len(content):
        kind, file, offset, size = RECORD.unpack_from(content, place)
        place += RECORD.size
        found.append(Operation(chr(kind), file, offset, content[place : place + size]))
        place += size
    return found


class Disk:
    """What a disk has for sure, and what it was given since the last sync."""

    def __init__(self) -> None:
        self._files: dict[int, bytearray] = collections.defaultdict(bytearray)
        self._pending: dict[int, list[Operation]] = collections.defaultdict(list)
        self._named: int | None = None
        self._renamed: list[int] = []
        self.told = 0
        """Rows for which `commit` or `finish` has returned."""
        self.is_finished = False

    def do(self, operation: Operation) -> None:
        """Takes up what the process does."""
        kind, file = operation.kind, operation.file
        if kind in "wt":
            self._pending[file].append(operation)
        elif kind == "s":
            self._files[file] = self._after(file, random.Random(0), 1.0)  # noqa: S311
            self._pending[file].clear()
        elif kind == "r":
            self._renamed.append(file)
        elif kind == "d":
            self._named = self._renamed[-1] if self._renamed else self._named
            self._renamed.clear()
        else:
            self.told = operation.offset
            self.is_finished = ord(kind) == FINISHED

    def after_power_loss(self, random_: random.Random, share: float) -> bytes | None:
        """The content of the file after a loss of power, `None` if there is none of its name.

        Args:
            random_: Of what is lost.
            share: Float. Share of the pages that have all that was written to them.
        """
        names = [self._named, *self._renamed]
        file = names[-1] if random_.random() < share else random_.choice(names)
        return None if file is None else bytes(self._after(file, random_, share))

    def _after(self, file: int, random_: random.Random, share: float) -> bytearray:
        def some(count: int) -> int:
            return count if random_.random() < share else random_.randrange(count + 1)

        content = bytearray(self._files[file])
        sizes = [len(content)]
        pages: dict[int, list[tuple[int, bytes]]] = collections.defaultdict(list)
        for operation in self._pending[file]:
            start, data = operation.offset, operation.content
            if operation.kind == "t":
                sizes.append(start)
                continue
            sizes.append(max(sizes[-1], start + len(data)))
            for page in range(start // PAGE, (start + len(data) - 1) // PAGE + 1):
                first, last = max(start, page * PAGE), min(start + len(data), (page + 1) * PAGE)
                pages[page].append((first, data[first - start : last - start]))
        content.extend(bytes(max(sizes) - len(content)))
        for writes in pages.values():
            for first, data in writes[: some(len(writes))]:
                content[first : first + len(data)] = data
        size = sizes[some(len(sizes) - 1)]
        return content[:size]


# The look at what is left.


def look(path: Path, layout: str, told: int, is_finished: bool) -> dict[str, str]:
    """Reads, verifies and resumes a file.

    Returns:
        Dict with a word for each of `"file"` and, if that could be tried, `"resume"`.
    """
    warnings.simplefilter("ignore")
    given = LAYOUTS[layout]
    found: dict[str, str] = {}
    try:
        with PredictionFile(path) as predictions:
            rows, is_complete = predictions.rows, predictions.complete
            try:
                predictions.verify()
                is_verified = True
            except ValueError:
                is_verified = False
            try:
                outputs = {name: output[:] for name, output in predictions.items()}
            except ValueError:
                found["file"] = "can't be read"
            else:
                outcome = Outcome()
                outcome.compare(path, outputs, rows, dict(given.outputs(np.arange(rows))))
                wrong = "wrong, verified" if is_verified else "wrong, found by verify"
                right = "right" if is_verified else "right, not verified"
                found["file"] = wrong if outcome.wrong_values else right
            if told and found["file"] == "can't be read":
                found["lost"] = f"all of {told}"
            elif rows < told or (is_finished and not is_complete):
                found["lost"] = f"{rows} of {told}"
    except ValueError as error:
        found["file"] = "does not open"
        found["why"] = str(error)
        if told:
            found["lost"] = f"all of {told}"
    found |= resume(path, layout)
    return found


def resume(path: Path, layout: str) -> dict[str, str]:
    """Resumes and finishes a file, and compares its rows."""
    given = LAYOUTS[layout]
    try:
        writer = PredictionFileWriter(path, mode="resume", **{**_CHUNKS, **given.options})
        if not writer.is_complete:
            row, known = max(writer.rows - 3, 0), min(writer.rows, 3)
            last = writer.rows + MORE * given.step
            while row < last:
                end = min(row + known + given.step, last)
                writer.append(given.outputs(np.arange(row, end)), known=known)
                writer.commit()
                row, known = end, 0
        writer.finish()
    except (ValueError, OSError) as error:
        return {"resume": "refused", "why not": str(error)}
    with PredictionFile(path) as predictions:
        outputs = {name: output[:] for name, output in predictions.items()}
        rows, outcome = predictions.rows, Outcome()
        outcome.compare(path, outputs, rows, dict(given.outputs(np.arange(rows))))
        found = {"resume": "wrong" if outcome.wrong_values else "right"}
        try:
            predictions.verify()
        except ValueError as error:
            found["resume"] += ", not verified"
            found["why not"] = str(error)
    return found


def look_in_a_fork(path: Path, layout: str, told: int, is_finished: bool) -> dict[str, str]:
    """The same in a process of its own, which may crash or hang."""
    report = path.with_name("report")
    pid = os.fork()
    if not pid:
        signal.alarm(HANGS_AFTER)
        try:
            report.write_text(json.dumps(look(path, layout, told, is_finished)))
        except BaseException as error:  # noqa: BLE001 - told by the report
            report.write_text(json.dumps({"file": "failed", "why": repr(error)}))
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == -signal.SIGALRM:
        return {"file": "hangs"}
    if status:
        return {"file": f"crashes by signal {-status}"}
    found: dict[str, str] = json.loads(report.read_text())
    return found


def crash(
    folder: Path, library: Path, layout: str, *, fsync: bool, points: int, seed: int
) -> list[dict[str, str]]:
    """Records one file, and looks at what many losses of power would have left of it."""
    written, log = folder / "written", folder / "log"
    written.mkdir()
    record(written, log, library, layout, fsync=fsync, seed=seed)
    operations = read_log(log)
    log.unlink()
    random_ = random.Random(seed)  # noqa: S311 - not for secrets
    moments = collections.Counter(random_.randrange(len(operations)) for _ in range(points))
    disk, found = Disk(), []
    for number, operation in enumerate(operations):
        disk.do(operation)
        for _ in range(moments[number]):
            place = Path(tempfile.mkdtemp(dir=folder))
            content = disk.after_power_loss(random_, random_.choice([0.1, 0.5, 0.9, 1.0]))
            if content is None:
                found.append({"file": "there is none"})
                if disk.told:
                    found[-1]["lost"] = f"all of {disk.told}"
                continue
            (place / NAME).write_bytes(content)
            told = disk.told if fsync or disk.is_finished else 0
            found.append(look_in_a_fork(place / NAME, layout, told, disk.is_finished))
            shutil.rmtree(place)
    return found


def run(folder: Path, *, fsync: bool, points: int) -> list[dict[str, str]]:
    """Crash points over all layouts; prints what was found."""
    library = build_library(folder)
    found = []
    for number, layout in enumerate(LAYOUTS):
        began = time.monotonic()
        place = folder / f"{number}{'s' if fsync else ''}"
        place.mkdir()
        share = (points + number) // len(LAYOUTS)
        some = crash(place, library, layout, fsync=fsync, points=share, seed=number)
        found += some
        counts = collections.Counter(
            f"{result['file']}; resume {result.get('resume', 'not tried')}"
            + ("; LOST" if "lost" in result and (fsync or result["file"] == "right") else "")
            for result in some
        )
        print(f"fsync={fsync}, {layout}, {time.monotonic() - began:.0f} s:")
        for kind, count in counts.most_common():
            print(f"  {count:4} {kind}")
        reasons = [result[why] for result in some for why in ("why", "why not") if why in result]
        for reason in sorted({_without_places(reason) for reason in reasons}):
            print(f"       {reason}")
    return found


def _without_places(reason: str) -> str:
    return re.sub(r"Received: path='[^']*'", "", re.sub(r"\d+", "0", reason))


def is_deceiving(result: dict[str, str]) -> bool:
    """Whether wrong rows pass for right ones, or something hangs or fails in another way."""
    strange = result["file"].split()[0] in {"hangs", "failed"}
    return strange or result["file"] == "wrong, verified" or "wrong" in result.get("resume", "")


def figures(synced: int = 70, unsynced: int = 70) -> Iterator[Any]:
    """Counts what was lost, and files that deceive.

    Raises:
        AssertionError: If a file deceives, or a commit with `fsync=True` is lost.
    """
    from measure import Figure, amount  # noqa: PLC0415 - it is not there for the recorded process

    if shutil.which(COMPILER) is None:
        print("There is no C compiler, so nothing is replayed.")
        return
    synced, unsynced = amount(synced, smallest=7), amount(unsynced, smallest=7)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for fsync, points in ((True, synced), (False, unsynced)):
            found = run(Path(folder), fsync=fsync, points=points)
            name = f"{len(found):,} losses of power, fsync={fsync}"
            deceived = sum(map(is_deceiving, found))
            failed += deceived
            yield Figure(f"{name}: files that deceive", deceived, "files", "<= 0")
            resumed = sum(result.get("resume") == "right" for result in found)
            yield Figure(f"{name}: resumed", resumed, "files")
            crashed = sum(result["file"].startswith("crashes") for result in found)
            yield Figure(f"{name}: HDF5 ends the process that reads", crashed, "files")
            closed = sum(result["file"] in {"does not open", "can't be read"} for result in found)
            yield Figure(f"{name}: not opened or read", closed, "files")
            if fsync:
                lost = sum("lost" in result for result in found)
                failed += lost
                yield Figure(f"{name}: lost commits", lost, "files", "<= 0")
    if failed:
        raise AssertionError("losses of power have left a file that is not as it should be")


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), sys.argv[3], fsync=bool(int(sys.argv[4])), seed=int(sys.argv[5]))
    else:
        from measure import machine, show

        counts = [int(argument) for argument in sys.argv[1:]] or [600, 600]
        print(machine())
        show(figures(*counts))
