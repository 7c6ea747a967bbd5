"""Disks that fill up, folders that go, processes that end: `predict` says so, and nothing hangs."""

import os
import shutil
import signal
import subprocess
import threading
from textwrap import dedent

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.storage import PredictionFileWriter

PREAMBLE = """
import os, resource, signal, sys, threading, time
import keras, numpy as np
from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.storage import PredictionFileWriter

path = sys.argv[1]
rows = np.arange(2000 * 256, dtype="float32").reshape(2000, 256)
model = keras.Sequential([keras.Input((256,)), keras.layers.Rescaling(0.5)])


class OnBatchEnd(keras.callbacks.Callback):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_predict_batch_end(self, batch, logs=None):
        self.function(batch)


def predict(*others, batch_size=10, **options):
    options = {"mode": "resume", "accumulate": False, "commit_interval": 0.02, **options}
    global writer
    writer = HDF5PredictionWriter(path, **options)
    model.predict(rows, batch_size=batch_size, verbose=0, callbacks=[writer, *others])
"""


ROWS = np.arange(2000 * 256, dtype="float32").reshape(2000, 256)


@pytest.fixture
def start(keras_server):
    """Starts a process with the model, the data and `predict`."""
    return lambda script, *args: keras_server.start(PREAMBLE + dedent(script), *args)


def resume(path):
    """Finishes in this process what another one has begun."""
    model = keras.Sequential([keras.Input((256,)), keras.layers.Rescaling(0.5)])
    writer = HDF5PredictionWriter(path, mode="resume", accumulate=False)
    model.predict(ROWS, batch_size=10, verbose=0, callbacks=[writer])


def assert_holds(path, *, rows=None, complete=False):
    """The file has the first rows of the prediction, right to the last bit, and no lock."""
    expected = ROWS / 2
    with PredictionFile(path) as predictions:
        assert predictions.complete is complete
        assert rows in (None, predictions.rows)
        np.testing.assert_array_equal(
            predictions["predictions"][:], expected[: predictions.rows], strict=True
        )
    assert not path.with_name(path.name + ".lock").exists()
    return predictions.rows


# A disk without room


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB where one can be mounted, else a folder of the large one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and not subprocess.run(mount, check=False).returncode
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


FULL = """
    kind, limit = sys.argv[2], int(sys.argv[3])
    filler = os.path.join(os.path.dirname(path), "filler")
    if kind == "disk":
        with open(filler, "wb") as file:
            file.write(bytes(limit))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    writer = HDF5PredictionWriter(
        path, mode="resume", accumulate=False, commit_interval=float(sys.argv[4])
    )
    batches = []
    failed = threading.Event()

    def telling(function):
        def call(*args, **kwargs):
            try:
                function(*args, **kwargs)
            except OSError:
                failed.set()
                raise
        return call

    for name in ("append", "commit"):
        function = getattr(PredictionFileWriter, name)
        setattr(PredictionFileWriter, name, telling(function))

    def on_batch_end(batch):
        batches.append(batch)
        if batch == 180 and float(sys.argv[4]) < 1:  # more was predicted than has room
            assert failed.wait(60)

    try:
        model.predict(rows, batch_size=10, verbose=0, callbacks=[writer, OnBatchEnd(on_batch_end)])
    except OSError as error:
        message = str(error)
        with PredictionFile(path) as predictions:
            done = predictions.rows
            assert not predictions.complete
            right = predictions["predictions"][:] == rows[:done] / 2
            assert right.all(), "wrong rows"
        assert path in message, message
        safe = f"{done} rows are committed, and mode='resume'" if done else "no rows are committed"
        assert safe in message, (done, message)
        assert os.listdir(os.path.dirname(path)).count("p.h5.lock") == 0
        print("ended by", type(error).__name__, error.errno, "after", len(batches), "of 200")
    if kind == "disk":
        os.unlink(filler)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    model.predict(rows, batch_size=10, verbose=0, callbacks=[writer])
    print("done")
"""


def once(*values):
    """Parameters whose processes all say the same of the writer: one is enough elsewhere."""
    mark = pytest.mark.backends("tensorflow", reason="one such process is enough on the others")
    return [values[0], *(pytest.param(value, marks=mark) for value in values[1:])]


@pytest.mark.slow
@pytest.mark.parametrize("commit_interval", once(0.02, 60.0))
@pytest.mark.parametrize("kind", once("disk", "limit of file sizes"))
def test_no_room(kind, commit_interval, small_disk, start):
    """`predict` ends with an error that names the file and the rows that are safe.

    With room again the same callback goes on, and the file is that of an uninterrupted run.
    """
    folder, mounted = small_disk
    path = folder / "p.h5"
    on_disk = mounted and kind == "disk"
    # The file needs 2.1 MB: so much of the disk is taken, or no file may be longer.
    arguments = ("disk", 7_000_000) if on_disk else ("limit", 1_200_000)
    status, out, errors = start(FULL, path, *arguments, commit_interval).end()
    # HDF5 1.14.2, of h5py 3.11, crashes when the interpreter ends, after all that is tested here.
    crashes = h5py.version.hdf5_version_tuple < (1, 14, 4) and on_disk
    assert status == 0 or (crashes and status == -signal.SIGSEGV), errors
    ended, done = out.splitlines()
    assert ended.startswith("ended by OSError 28" if on_disk else "ended by OSError 27"), out
    if commit_interval < 1:
        assert int(ended.split()[-3]) < 200, "the error came at the end only"
    assert done == "done"
    assert_holds(path, rows=2000, complete=True)
    assert os.listdir(folder) == ["p.h5"]


def test_the_folder_is_deleted(tmp_path, monkeypatch):
    """A folder that goes during `predict` ends it with an error that names the file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(0.5)])
    batches = []
    failed = threading.Event()
    commit = PredictionFileWriter.commit

    def telling(self):
        try:
            commit(self)
        except OSError:
            failed.set()
            raise

    monkeypatch.setattr(PredictionFileWriter, "commit", telling)

    class Deletes(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            batches.append(batch)
            if batch == 3:
                shutil.rmtree(folder)
            if batch == 10:
                assert failed.wait(60)

    writer = HDF5PredictionWriter(folder / "p.h5", accumulate=False, commit_interval=0.02)
    with pytest.raises(OSError, match=r"folder/p\.h5"):
        model.predict(np.zeros((4000, 4)), batch_size=4, verbose=0, callbacks=[writer, Deletes()])
    assert 3 < len(batches) < 1000
    assert list(tmp_path.iterdir()) == []
    writer.close()
    folder.mkdir()
    assert model.predict(np.zeros((40, 4)), verbose=0, callbacks=[writer]) == {}
    with PredictionFile(folder / "p.h5") as predictions:
        assert (predictions.rows, predictions.complete) == (40, True)


# Processes that end


def test_exit_while_the_thread_has_work(start, path):
    """A script that ends without `on_predict_end` writes what waits in the queue, and ends."""
    script = """
        append = PredictionFileWriter.append
        ends = threading.Event()

        def first_or_at_the_end(self, *args, **kwargs):
            assert not self.rows or ends.wait(60)
            append(self, *args, **kwargs)

        def fail(batch):
            if batch == 30:
                raise RuntimeError("no more")

        PredictionFileWriter.append = first_or_at_the_end
        sys.excepthook = lambda *error: (ends.set(), sys.__excepthook__(*error))
        predict(OnBatchEnd(fail), commit_interval=60)
    """
    status, _, errors = start(script, path).end()
    assert status == 1
    assert errors.rstrip().endswith("RuntimeError: no more"), errors
    assert_holds(path, rows=310)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.slow
def test_exit_while_another_thread_predicts(start, path):
    """A script that ends beside a thread in `predict` ends, and leaves an intact file."""
    script = """
        steps, ends = threading.Semaphore(0), threading.Event()

        def on_batch_end(batch):
            steps.release()
            assert batch < 50 or ends.wait(60)

        threading.Thread(target=predict, args=[OnBatchEnd(on_batch_end)], daemon=True).start()
        for _ in range(50):
            steps.acquire()
        print("ends", flush=True)
        ends.set()
    """
    status, out, _ = start(script, path).end()
    assert out == "ends\n"
    # torch may abort a process that ends while another thread is in one of its functions.
    aborts = {-signal.SIGABRT} if keras.backend.backend() == "torch" else set()
    assert status in {0} | aborts
    with PredictionFile(path) as predictions:
        assert not predictions.complete
    resume(path)
    assert_holds(path, rows=2000, complete=True)


@pytest.mark.parametrize("hook", once("predict_batch_begin", "predict_batch_end"))
def test_sys_exit_in_a_callback(hook, start, path):
    """`sys.exit` ends the process with its status, and every row until then is in the file."""
    script = """
        class Exits(keras.callbacks.Callback):
            pass

        def leave(self, batch, logs=None):
            if batch == 20:
                sys.exit(7)

        setattr(Exits, "on_" + sys.argv[2], leave)
        predict(Exits(), commit_interval=60)
    """
    status, _, errors = start(script, path, hook).end()
    assert (status, "Traceback" in errors) == (7, False), errors
    assert_holds(path, rows=200 if hook.endswith("begin") else 210)
    assert os.listdir(path.parent) == [path.name]


INTERRUPTED = """
    from kerasext.storage import BackgroundWriter

    times = int(sys.argv[2])
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)  # tells another thread of a signal at once
    append, close = PredictionFileWriter.append, BackgroundWriter.close

    def append_late(self, *args, **kwargs):
        global times
        while self.rows and times:
            times -= len(os.read(signals, times))
        append(self, *args, **kwargs)

    def telling(self):
        print("closing", flush=True)
        close(self)

    def on_batch_end(batch):
        if batch == 20:
            print("batch 20", flush=True)
            while True:
                time.sleep(0.01)

    PredictionFileWriter.append, BackgroundWriter.close = append_late, telling
    predict(OnBatchEnd(on_batch_end))
"""


@pytest.mark.parametrize("times", once(1, 2))
def test_ctrl_c(times, start, path):
    """Ctrl-C ends the process, a second one too while it closes the file; the file is intact.

    "resume" finishes it.
    """
    process = start(INTERRUPTED, path, times)
    for moment in ("batch 20\n", "closing\n")[:times]:
        assert process.out.readline() == moment
        process.interrupt()
    status, _, errors = process.end()
    assert status in {1, 130, -signal.SIGINT}, errors
    assert "KeyboardInterrupt" in errors
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        assert times == 2 or predictions.rows == 210
        np.testing.assert_array_equal(predictions["predictions"][:], ROWS[: predictions.rows] / 2)
    resume(path)
    assert_holds(path, rows=2000, complete=True)
    assert os.listdir(path.parent) == [path.name]
