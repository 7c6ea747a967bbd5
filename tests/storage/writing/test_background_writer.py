"""Steps handed to the thread arrive whole and in order, and no failure goes unheard or hangs."""

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from held_writer import Gate, TellingWriter

from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.writing import background_writer


def rows_of(first, rows):
    """A step of two outputs whose rows tell where they stand."""
    index = np.arange(first, first + rows)
    return {"a": np.stack([index, -index], axis=1).astype("f4"), "b": index.astype("i8")}


ROW_BYTES = 16


def make(path, *, to_arrays=dict, queue_bytes=1 << 20, commit_interval=60.0, **options):
    """A background writer that commits at the end only."""
    return TellingWriter(
        PredictionFileWriter(path, **options),
        to_arrays=to_arrays,
        queue_bytes=queue_bytes,
        commit_interval=commit_interval,
    )


def append_all(background, sizes, first=0):
    """Appends steps of these sizes."""
    for size in sizes:
        background.append(rows_of(first, size), size)
        first += size
    return first


def assert_holds(path, rows, *, complete):
    """The file has the rows that `rows_of` makes, and no others."""
    expected = rows_of(0, rows)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (rows, complete)
        for name, array in expected.items():
            np.testing.assert_array_equal(predictions[name][:], array, strict=True)


def wait_for(condition, seconds=30):
    """Waits until something is so, and fails if it never comes."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "it never came"
        time.sleep(0.005)


def in_a_thread(function, *args):
    """Runs what may hang where it can be given up."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    """Whatever a test does, its writer has no thread when it is over."""
    before = set(threading.enumerate())
    yield
    wait_for(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("commit_interval", [0.001, 60.0])
@pytest.mark.parametrize(
    ("sizes", "queue_bytes"),
    [
        ([1] * 5000, 1 << 20),
        ([1] * 500, 0),
        ([7, 1, 40, 3] * 300, 1000),
        ([3, 200_000, 1, 70_000, 65_536] * 2, 1 << 20),  # most of them larger than the queue
    ],
)
def test_every_step_arrives_in_order(sizes, queue_bytes, commit_interval, path):
    """The file holds what was appended, however the steps are cut and the commits fall."""
    background = make(path, queue_bytes=queue_bytes, commit_interval=commit_interval)
    rows = append_all(background, sizes)
    background.finish()
    assert_holds(path, rows, complete=True)
    assert background.writer.rows == rows
    assert background.writer.state.bytes == rows * ROW_BYTES


def test_an_empty_step_among_others(path):
    """A step without rows changes nothing, be it the first, one between or the last."""
    background = make(path)
    append_all(background, [0, 5, 0, 4, 0])
    background.finish()
    assert_holds(path, 9, complete=True)


def test_steps_that_wait_at_the_end(path, monkeypatch):
    """A commit that falls due while the last steps are written leaves none of them out."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(background_writer, "time", clock)

    def slowly(step):
        now[0] += 60.0  # the commit interval
        return step

    background = make(path, to_arrays=slowly)
    rows = append_all(background, [10, 1, 2, 3])
    monkeypatch.setattr(background_writer, "_WAKE_BYTES", 1)  # one step at a time
    background.finish()
    assert_holds(path, rows, complete=True)


def test_steps_are_converted_once_each(path):
    """What is appended is given to `to_arrays` in order, and once."""
    seen = []

    def to_arrays(step):
        seen.append(step)
        return rows_of(step, 1)

    background = make(path, to_arrays=to_arrays)
    for number in range(1000):
        background.append(number, 1)
    background.finish()
    assert seen == list(range(1000))
    assert_holds(path, 1000, complete=True)


def test_resume_with_known_rows(path):
    """The first step may begin with the last rows of the file, which are not added again."""
    background = make(path)
    append_all(background, [10, 10])
    background.close()
    background = make(path, mode="resume")
    background.append(rows_of(15, 10), 10, known=5)
    append_all(background, [3, 4], first=25)
    background.finish()
    assert_holds(path, 32, complete=True)


def test_known_rows_that_the_thread_finds(path):
    """How many rows of the first step are known may be found by the thread, of what is stored."""
    background = make(path)
    append_all(background, [10])
    background.close()
    threads = []

    def to_arrays(step):
        threads.append(threading.get_ident())
        return step

    background = make(path, to_arrays=to_arrays, mode="resume")
    background.append(rows_of(5, 10), 5, known=lambda rows: int((rows["b"] < 10).sum()))
    append_all(background, [3], first=15)
    background.finish()
    assert_holds(path, 18, complete=True)
    assert len(threads) == 2
    assert threading.get_ident() not in threads


# Errors


def test_an_error_in_the_first_step_is_raised_at_once(path):
    """What is wrong with the outputs shows in the call that brings them, and no file is made."""
    background = make(path)
    with pytest.raises(ValueError, match="same number of rows"):
        background.append({"a": np.zeros((4, 2)), "b": np.zeros(5)}, 4)
    background.close()
    assert list(path.parent.iterdir()) == []


BAD_STEPS = {
    "other shape": ({**rows_of(30, 4), "a": np.zeros((4, 3), "f4")}, "'a'.*same row shape"),
    "other dtype": ({**rows_of(30, 4), "b": np.zeros(4)}, "'b'.*same dtype"),
    "unequal rows": ({**rows_of(30, 4), "b": np.zeros(5, "i8")}, "same number of rows"),
    "no output": ({}, "same outputs"),
    "one missing": ({"a": np.zeros((4, 2), "f4")}, "same outputs"),
    "another one": ({**rows_of(30, 4), "c": np.zeros(4)}, "same outputs"),
    "another instead": ({"a": np.zeros((4, 2), "f4"), "c": np.zeros(4)}, "same outputs"),
}


@pytest.mark.parametrize("end", ["finish", "close", "append"])
@pytest.mark.parametrize("name", BAD_STEPS)
def test_an_error_in_a_later_step_is_raised_later(name, end, path):
    """A bad step's error comes with a later call; all rows before it are kept, none after it.

    The file says that it is incomplete, and only one call raises the error.
    """
    step, message = BAD_STEPS[name]
    background = make(path, commit_interval=0.005)
    append_all(background, [10, 13, 7])
    background.append(step, 4)
    with pytest.raises(ValueError, match=message):  # noqa: PT012 - whichever call meets it
        if end == "append":
            wait_for(lambda: append_all(background, [1], first=30) < 0)
        else:
            getattr(background, end)()
    background.close()
    assert_holds(path, 30, complete=False)
    assert not path.with_name(path.name + ".lock").exists()


def test_an_error_of_the_conversion(path):
    """What `to_arrays` raises in the thread is raised by a later call."""

    def to_arrays(step):
        return 1 / 0 if step == 5 else rows_of(step, 1)

    background = make(path, to_arrays=to_arrays)
    for number in range(6):
        background.append(number, 1)
    with pytest.raises(ZeroDivisionError):
        background.finish()
    background.close()
    assert_holds(path, 5, complete=False)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit])
@pytest.mark.parametrize("end", ["append", "finish"])
def test_a_thread_that_dies_does_not_hang_the_caller(error, end, path):
    """Whatever ends the thread, the caller goes on, hears of it, and keeps the rows before."""
    died = threading.Event()

    def to_arrays(step):
        if step["b"][0] >= 20:
            died.wait(30)
            raise error
        return step

    background = make(path, to_arrays=to_arrays, queue_bytes=10 * ROW_BYTES)
    append_all(background, [10, 10])
    caught = []

    def use():
        try:
            if end == "append":
                for first in itertools.count(20):
                    background.append(rows_of(first, 1), 1)
            else:
                background.append(rows_of(20, 1), 1)
                background.finish()
        except BaseException as raised:  # noqa: BLE001 - it is what the test is about
            caught.append(raised)

    thread = in_a_thread(use)
    assert background.is_waited_for.wait(30)
    assert not caught
    died.set()
    thread.join(30)
    assert not thread.is_alive()
    assert [type(raised) for raised in caught] == [error]
    background.close()
    assert_holds(path, 20, complete=False)


def test_a_file_that_is_gone(path):
    """The error of a commit in the thread reaches the caller, and the end does not hang."""
    background = make(path, commit_interval=0.005)
    append_all(background, [10])
    path.unlink()
    with pytest.raises(FileNotFoundError, match="must stay where it is"):
        wait_for(lambda: append_all(background, [1], first=10) < 0)
    background.close()
    assert list(path.parent.iterdir()) == []


def test_two_errors_at_once(path):
    """A bad step in a file that is gone is one error to the caller, with no traceback beside it."""
    background = make(path)
    append_all(background, [10])
    path.unlink()
    background.append({}, 4)
    with pytest.raises((OSError, ValueError)):
        background.finish()
    background.close()
    assert list(path.parent.iterdir()) == []


# The queue


def test_the_queue_is_bounded(path):
    """With a disk that stands still the caller waits once the queue is full; that is counted."""
    gate = Gate()
    background = make(path, to_arrays=gate, queue_bytes=100 * ROW_BYTES)
    append_all(background, [10])
    brought = [10]

    def bring():
        for _ in range(50):
            brought.append(append_all(background, [10], first=brought[-1]))
        background.is_waited_for.set()  # which comes too late

    thread = in_a_thread(bring)
    assert background.is_waited_for.wait(30)
    assert 100 <= brought[-1] <= 130, "100 rows in the queue, and a step on each side of it"
    gate.open.set()
    thread.join(30)
    background.finish()
    assert_holds(path, 510, complete=True)
    assert background.writer.caller.stalled_seconds > 0
    with PredictionFile(path) as predictions:
        assert predictions.health["stalled_seconds"] == background.writer.caller.stalled_seconds


@pytest.mark.parametrize("queue_bytes", [0, 1, 100])
def test_one_large_step_is_admitted(queue_bytes, path):
    """A step that is larger than the queue does not wait for room that never comes."""
    gate = Gate()
    background = make(path, to_arrays=gate, queue_bytes=queue_bytes)
    append_all(background, [10])
    thread = in_a_thread(append_all, background, [100_000], 10)
    thread.join(30)
    assert not thread.is_alive()
    gate.open.set()
    background.finish()
    assert_holds(path, 100_010, complete=True)


def test_a_fast_disk_is_not_waited_for(path):
    """Steps that never fill the queue stall nobody."""
    background = make(path, queue_bytes=1 << 30)
    append_all(background, [10] * 100)
    background.finish()
    assert background.writer.caller.stalled_seconds == 0


def test_memory_stays_constant(path):
    """After ten thousands of steps no more is in memory than the queue may hold."""
    rows, steps, queue_bytes = 64, 20_000, 1 << 20
    background = make(path, queue_bytes=queue_bytes, commit_interval=0.01)
    append_all(background, [rows])
    tracemalloc.start()
    try:
        append_all(background, [rows] * steps, first=rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    background.finish()
    assert rows * steps * ROW_BYTES > 18 << 20
    assert peak < queue_bytes + (6 << 20), f"{peak / 2**20:.1f} MiB"
    with PredictionFile(path) as predictions:
        assert predictions.rows == rows * (steps + 1)


# Commits


def test_hdf5_in_another_thread(tmp_path):
    """The caller may read and write HDF5 files of its own while the thread writes."""
    ours, theirs = tmp_path / "ours.h5", tmp_path / "theirs.h5"
    script = """
        import sys
        import h5py, numpy as np
        from kerasext.storage import BackgroundWriter, PredictionFileWriter

        background = BackgroundWriter(
            PredictionFileWriter(sys.argv[1]), to_arrays=dict, queue_bytes=1 << 20,
            commit_interval=0.005,
        )
        for first in range(0, 120_000, 200):
            index = np.arange(first, first + 200)
            step = {"a": np.stack([index, -index], axis=1).astype("f4"), "b": index.astype("i8")}
            background.append(step, 200)
            with h5py.File(sys.argv[2], "w") as file:
                file["x"] = index
            with h5py.File(sys.argv[2], "r") as file:
                assert (file["x"][:] == index).all()
        background.finish()
    """
    # In another process, for two threads in HDF5 at once end it by a signal.
    command = [sys.executable, "-c", textwrap.dedent(script), ours, theirs]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert_holds(ours, 120_000, complete=True)


READER = """
    import sys, time
    import numpy as np
    from kerasext.storage import PredictionFile

    last = time.monotonic() + 30
    while True:
        with PredictionFile(sys.argv[1]) as predictions:
            assert not predictions.complete
            np.testing.assert_array_equal(predictions["b"][:], np.arange(predictions.rows))
            if predictions.rows >= int(sys.argv[2]):
                print(predictions.rows)
                break
        assert time.monotonic() < last, "they never came"
        time.sleep(0.005)
"""


def rows_seen_elsewhere(path, rows):
    """Rows that another process sees, once they are so many."""
    command = [sys.executable, "-c", textwrap.dedent(READER), path, str(rows)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_rows_become_visible_while_it_waits(path):
    """`commit_interval` after they came the rows can be read, though no step follows them."""
    background = make(path, commit_interval=0.05)
    for first, rows in ((0, 10), (10, 30)):
        append_all(background, [rows - first], first=first)
        assert rows_seen_elsewhere(path, rows) == rows
    background.finish()
    assert_holds(path, 30, complete=True)


def test_a_commit_has_what_came_before_it(path, monkeypatch):
    """Steps that wait when a commit is due are in this commit, and not first in the next one."""
    background = make(path, commit_interval=0.001)
    have_come = threading.Event()
    wait, commit = background._wake.wait, background.writer.commit
    committed = []

    def wait_for_steps(timeout):
        assert have_come.wait(60)
        wait(timeout)

    def count_rows_and_commit():
        committed.append(background.writer.rows)
        commit()

    monkeypatch.setattr(background._wake, "wait", wait_for_steps)
    monkeypatch.setattr(background.writer, "commit", count_rows_and_commit)
    append_all(background, [1, 2, 3])
    have_come.set()
    wait_for(lambda: committed)
    background.finish()
    assert committed[0] == 6


def test_rows_become_visible_under_load(path):
    """Commits come also while steps never cease to come."""
    background = make(path, commit_interval=0.02)
    over = threading.Event()
    brought = []

    def bring():
        first = 0
        while not over.is_set():
            first = append_all(background, [3], first=first)
            brought[:] = [first]

    thread = in_a_thread(bring)
    try:
        wait_for(path.exists)
        seen = 0
        for _ in range(4):
            seen = rows_seen_elsewhere(path, seen + 1)
    finally:
        over.set()
        thread.join(30)
        background.finish()
    assert_holds(path, brought[0], complete=True)


# The end


@pytest.mark.parametrize("ends", list(itertools.product(["finish", "close"], repeat=3)))
def test_the_end_may_be_said_again(ends, path):
    """The first of `finish` and `close` counts; after it both do nothing."""
    background = make(path)
    append_all(background, [5, 6])
    for end in ends:
        getattr(background, end)()
    assert_holds(path, 11, complete=ends[0] == "finish")


def test_a_failed_job_is_not_finished(path):
    """`finish` after an error that another call has raised names that error, every time."""
    background = make(path)
    append_all(background, [5])
    background.append({"no such output": np.zeros(3)}, 3)
    with pytest.raises(ValueError, match="same outputs"):
        background.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"job has failed.*same outputs") as caught:
            background.finish()
        assert isinstance(caught.value.__cause__, ValueError)
    background.close()
    with PredictionFile(path) as predictions:
        assert not predictions.complete


@pytest.mark.parametrize("end", ["finish", "close"])
def test_the_end_before_a_step(end, path):
    """Without a step there is no file and no lock."""
    background = make(path)
    getattr(background, end)()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("steps", [[], [5], [5, 6]])
@pytest.mark.parametrize("end", ["finish", "close"])
def test_a_step_after_the_end_is_refused(end, steps, path):
    """After the end a step raises an error and leaves the file alone."""
    background = make(path)
    append_all(background, steps)
    getattr(background, end)()
    before = path.exists() and path.read_bytes()
    with pytest.raises(ValueError, match="make another one"):
        background.append(rows_of(11, 3), 3)
    assert (path.exists() and path.read_bytes()) == before


def test_another_writer_can_begin_after_the_end(path):
    """The lock is free when `finish` returns."""
    for first in (0, 20):
        background = make(path, mode="a")
        append_all(background, [10, 10], first=first)
        background.finish()
    assert_holds(path, 40, complete=True)


FORKED = """
import os, signal, sys
import numpy as np
from kerasext.storage import BackgroundWriter, PredictionFileWriter

writer = BackgroundWriter(
    PredictionFileWriter(sys.argv[1]), to_arrays=dict, queue_bytes=1000, commit_interval=60.0
)
writer.append({"a": np.arange(3)}, 3)
if os.fork() == 0:
    signal.alarm(60)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
writer.finish()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_exit_of_a_fork(path):
    """A forked process ends while its parent writes: the thread that writes is not in it."""
    subprocess.run([sys.executable, "-c", FORKED, path], check=True, capture_output=True)
    with PredictionFile(path) as predictions:
        assert predictions.complete
        assert predictions["a"][:].tolist() == [0, 1, 2]
