"""A string that is longer than its column ends a job, and "resume" goes on with a wider column."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from interrupting import interrupted as interrupted_at, lines_of

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows

ROWS = 720
LONG = 600  # the row with a string of 150 bytes
CLASSES = ["cat", "größe"]


def content(start, stop):
    """Rows of every kind of column that can have text."""
    rows = np.arange(start, stop)
    names = [f"{'ö' * 75 if row == LONG else 'bild'}{row if row != LONG else ''}" for row in rows]
    names = np.array(names, dtype=object)
    words = np.array([[name, "x"] for name in names], dtype=object)
    lengths = rows % 3
    ragged = np.repeat(names, np.where(rows == LONG, 1, lengths))
    shapes = np.where(rows == LONG, 1, lengths).astype(np.int64)[:, None]
    return {
        "labels": (rows % 2).astype(np.int32),
        "embedding": rows[:, None] * np.arange(1, 1001, dtype="f4"),
        "ids": names,
        "text": words,
        "tokens": RaggedRows(ragged, shapes),
    }


def as_read(array):
    """What a `PredictionFile` is to give."""
    if isinstance(array, RaggedRows):
        return [row.astype(str).tolist() for row in array]
    return array.tolist()


def write(path, *, stop=ROWS, step=60, finish=True, **options):
    """Writes steps from the first row that is missing; raises what the writer raises."""
    writer = PredictionFileWriter(path, ragged=["tokens"], class_names=CLASSES, **options)
    try:
        for start in range(writer.rows, stop, step):
            writer.append(content(start, min(start + step, stop)))
        if finish:
            writer.finish()
    finally:
        writer.close()


def check(path, *, rows=ROWS, complete=True):
    """The file has these rows, all with the right checksums, and nothing lies beside it."""
    assert os.listdir(path.parent) == [path.name]
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (rows, complete)
        predictions.verify()
        for name, expected in content(0, rows).items():
            found = predictions[name][:]
            assert as_read(expected) == [
                row.tolist() if isinstance(row, np.ndarray) else row
                for row in (found if isinstance(found, list) else found.tolist())
            ]
        assert predictions.class_names == CLASSES
        assert predictions.origin["note"] == "kept"
        assert predictions.first_row == 0


def widths(path):
    """The bytes that the file has for each string."""
    with h5py.File(path) as file:
        return [file[name].dtype.itemsize for name in ("ids", "text", "tokens/values")]


@pytest.fixture
def interrupted(path):
    """A file whose job has met the long string."""
    with pytest.raises(ValueError, match=r"'ids': 'S150'.*mode='resume'.*150 bytes of UTF-8"):
        write(path, attributes={"note": "kept"})
    return path


def test_resume_widens_by_itself(interrupted):
    """Without a width the column gets twice what was needed, in the middle of the job."""
    assert max(widths(interrupted)) < 150
    write(interrupted, mode="resume", compression="gzip")
    check(interrupted)
    assert widths(interrupted) == [300, 300, 300]


def test_resume_with_a_width(interrupted):
    """With the widths that the error asks for the file is rewritten before the first row."""
    dtypes = dict.fromkeys(("ids", "text", "tokens"), "S150")
    write(interrupted, mode="resume", dtypes=dtypes)
    check(interrupted)
    assert widths(interrupted) == [150, 150, 150]


def test_a_width_that_was_given_is_kept_to(interrupted):
    """A width that is asked for is not exceeded: the error names the next one."""
    with pytest.raises(ValueError, match=r"'ids': 'S150'"):
        write(interrupted, mode="resume", dtypes={"ids": "S149"})
    check(interrupted, rows=LONG, complete=False)
    write(interrupted, mode="resume")
    check(interrupted)


def test_a_narrower_width_is_refused(interrupted):
    """A column gets no narrower; the error names its width."""
    write(interrupted, mode="resume", dtypes={"ids": "S150"}, stop=LONG + 60, finish=False)
    with pytest.raises(ValueError, match=r"`dtypes=\{'ids': 'S150'\}`.*Received: 'S149'"):
        write(interrupted, mode="resume", dtypes={"ids": "S149"})


def test_a_complete_file_is_only_compared(interrupted):
    """A complete file stays as it is, whatever width is asked for."""
    write(interrupted, mode="resume")
    before = interrupted.read_bytes()
    for dtypes in ({}, {"ids": "S999"}):
        writer = PredictionFileWriter(
            interrupted, mode="resume", ragged=["tokens"], dtypes=dtypes, fsync=None
        )
        writer.append(content(0, 60))
        with pytest.raises(ValueError, match="other values of output 'ids'"):
            writer.append({**content(660, ROWS), "ids": np.array(["z" * 999] * 60, object)})
        writer.close()
    assert interrupted.read_bytes() == before


def test_append_widens_if_it_is_asked_to(path):
    """Under "a" rows are added to a complete file with wider text, if a width is given."""
    write(path, stop=LONG)
    with pytest.raises(ValueError, match=r"'ids': 'S150'"):
        PredictionFileWriter(path, mode="a").declare_columns({"ids"}, 150)
    writer = PredictionFileWriter(
        path, mode="a", ragged=["tokens"], dtypes=dict.fromkeys(("ids", "text", "tokens"), "S150")
    )
    writer.append(content(LONG, ROWS))
    writer.finish()
    with PredictionFile(path) as predictions:
        assert (predictions.first_row, predictions.complete) == (LONG, True)
        assert predictions["ids"][:].tolist() == content(0, ROWS)["ids"].tolist()
        predictions.verify()


def test_ids_whose_width_is_known(interrupted):
    """Ids that are known before the first step make a column that has room for all of them."""
    writer = PredictionFileWriter(interrupted, mode="resume", ragged=["tokens"])
    writer.declare_columns({"ids"}, 150)
    writer.append(content(LONG, LONG + 1))
    writer.close()
    assert widths(interrupted) == [150, 300, 300]


def test_a_damaged_file_is_not_rewritten(interrupted):
    """Rows that do not match their checksums get none that do: the file stays, with an error."""
    with h5py.File(interrupted) as file:
        place = file["embedding"].id.get_chunk_info(0)
    with interrupted.open("r+b") as file:
        file.seek(place.byte_offset + 100)
        file.write(b"damage")
    before = interrupted.read_bytes()
    with pytest.raises(ValueError, match="'embedding' are not those that were written"):
        write(interrupted, mode="resume", dtypes={"ids": "S150"})
    assert os.listdir(interrupted.parent) == [interrupted.name]
    assert interrupted.read_bytes() == before


# What is interrupted between opening a file and entering its `with` is closed by the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", [6, pytest.param(150, marks=pytest.mark.slow)])
def test_interrupt_while_the_file_is_rewritten(interrupted, tmp_path, times):
    """Ctrl-C at any line leaves the old file or the new one, with all rows, to be resumed."""
    original = interrupted.read_bytes()
    step = content(LONG, LONG + 1)

    def resumed(name):
        path = tmp_path / name / interrupted.name
        path.parent.mkdir()
        path.write_bytes(original)
        return PredictionFileWriter(path, mode="resume", ragged=["tokens"])

    writer = resumed("whole")
    lines = lines_of(writer.append, step)
    writer.close()
    seen = set()
    # More often at the end, where the new file is opened.
    for back in np.unique(np.geomspace(1, lines, times).astype(int)).tolist():
        writer = resumed(str(back))
        assert interrupted_at(lines - back + 1, writer.append, step)
        writer.close()
        check(writer.path, rows=writer.rows, complete=False)
        seen.add((writer.rows, widths(writer.path)[0] > 150))
    assert {(LONG, False), (LONG, True)} <= seen <= {(LONG, False), (LONG, True), (LONG + 1, True)}


def calls_of_c(function):
    """How many functions of C a function calls."""
    count = 0

    def count_call(frame, event, argument):
        nonlocal count
        count += event == "c_call"

    sys.setprofile(count_call)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def killed_at(call, function):
    """Calls a function in a forked process that is killed before its n-th call of C."""
    pid = os.fork()
    if not pid:
        left = call

        def kill(frame, event, argument):
            nonlocal left
            left -= event == "c_call"
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(kill)
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


KILLER = """
import json, os, sys
from pathlib import Path
os.fsync = os.fstat  # no power is cut here
sys.path[:0] = sys.argv[1:]
from test_wider_text import calls_of_c, killed_at, write
for line in sys.stdin:
    call, path, options = json.loads(line)
    run = lambda: write(Path(path), **options)
    print(killed_at(call, run) if call else calls_of_c(run), flush=True)
"""


@pytest.fixture
def killer():
    """Asks a process that has no threads to fork others.

    Given a number it returns the exit status of one that is killed before so many calls of C;
    given 0 it returns how many calls there are.
    """
    folders = [Path(__file__).parent, Path(__file__).parents[2] / "helpers"]
    command = [sys.executable, "-c", KILLER, *map(str, folders)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, **pipes, text=True, env=env) as process:

        def ask(call, path, options):
            process.stdin.write(json.dumps([call, str(path), options]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield ask


@pytest.mark.slow
@pytest.mark.parametrize("dtypes", [{}, {"ids": "S150"}], ids=["by itself", "as asked"])
def test_a_kill_while_the_file_is_rewritten(interrupted, tmp_path, dtypes, killer):
    """A kill at any moment leaves the old file or the new one, with all rows, to be resumed."""
    options = {"mode": "resume", "compression": "gzip", "dtypes": dtypes}
    original = interrupted.read_bytes()

    def fresh(name):
        path = tmp_path / name / interrupted.name
        path.parent.mkdir()
        path.write_bytes(original)
        return path

    # The first time more functions are called, which keep what they return.
    _, calls = [killer(0, fresh(name), options) for name in ("first", "second")]
    kept = set()
    for call in np.linspace(1, calls - 20, 40).astype(int).tolist():
        path = fresh(str(call))
        assert killer(call, path, options) == -signal.SIGKILL
        with PredictionFile(path) as predictions:
            rows = predictions.rows
            assert rows >= LONG
            assert predictions["ids"][:].tolist() == content(0, rows)["ids"].tolist()
            np.testing.assert_array_equal(predictions["labels"][:], np.arange(rows) % 2)
            predictions.verify()
            kept.add(predictions["ids"].dtype)
        write(path, **options)
        check(path)
    assert len(kept) == 2, "kills came before the new file had its name, and after it"
