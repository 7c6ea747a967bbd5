import signal
import subprocess
import sys

import numpy as np
import pytest
from interrupting import interrupted
from two_outputs import PREAMBLE, check_rows, make_step, make_steps, read, run_python, write

from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.writing.chunk_writer import ChunkWriter


def wide_steps(sizes):
    """Steps whose outputs have chunks of unlike length, so that they fill at different times."""
    for step in make_steps(sizes):
        yield {**step, "wide": np.repeat(step["b"][:, None], 4096, axis=1)}


def check_wide_rows(path, allowed):
    """The file has one of these numbers of rows, the same in every output, and the right ones."""
    outputs, record = read(path)
    rows = len(outputs["b"])
    assert rows in allowed
    assert record["rows"] == rows
    (expected,) = wide_steps([rows])
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_interrupt_at_any_line(path, every):
    """Ctrl-C anywhere in a step leaves whole rows after closing: none or all of that step."""
    for line in range(1, 2000, every):
        writer = PredictionFileWriter(path, mode="w", expected_rows=5)
        first, second = wide_steps([5, 12])
        writer.append(first)
        came = interrupted(line, writer.append, second)
        writer.close()
        check_wide_rows(path, {5, 17} if came else {17})
        if not came:
            break
    assert 10 < line < 1999


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_interrupt_at_any_line_and_further_steps(path, every):
    """After Ctrl-C in a step the next ones are kept in whole rows or refused, never shifted."""
    for line in range(1, 2000, every):
        writer = PredictionFileWriter(path, mode="w", expected_rows=5)
        first, second = wide_steps([5, 12])
        writer.append(first)
        came = interrupted(line, writer.append, second)
        try:
            writer.append(second)
        except (ValueError, RuntimeError, OSError):
            allowed = {5, 17}
        else:
            allowed = {17, 29}
        writer.close()
        outputs, _ = read(path)
        assert len({len(array) for array in outputs.values()}) == 1
        assert len(outputs["b"]) in allowed
        np.testing.assert_array_equal(outputs["a"][:, 0], outputs["b"])
        np.testing.assert_array_equal(outputs["wide"][:, -1], outputs["b"])
        if not came:
            break


# What is interrupted between opening a file and entering its `with` is closed by the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("every", [29, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_interrupt_in_the_first_step(tmp_path, mode, every):
    """Ctrl-C anywhere in the first step leaves no file, the old one, or one of whole rows."""
    for line in range(1, 2000, every):
        path = tmp_path / f"{line}.h5"
        if mode != "x":
            write(path, wide_steps([9]))
        writer = PredictionFileWriter(path, mode=mode)
        (step,) = wide_steps([5]) if mode != "a" else [list(wide_steps([9, 5]))[1]]
        came = interrupted(line, writer.append, step)
        writer.close()
        if path.exists():
            check_wide_rows(path, {"x": {0, 5}, "w": {0, 5, 9}, "a": {9, 14}}[mode])
        else:
            assert mode == "x"
        write(path, wide_steps([5]), mode="w")
        if not came:
            break
    assert 30 < line < 1999


DISK_FULL = """
limit, steps = int(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
writer = PredictionFileWriter(path)
step = {"a": np.ones((1000, 256), "f4"), "b": np.ones(1000, "i4")}
try:
    for _ in range(steps):
        writer.append(step)
    writer.finish()
    print("finished")
except OSError:
    print("OSError")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    writer.append(step)
    print("went on")
except Exception as error:
    print("refused")
try:
    writer.finish()
except OSError:
    pass
writer.close()
"""


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        *((1, 2), (100, 2), (1000, 2), (5000, 2), (9000, 2), (12_000, 2)),  # making the file
        *((20_000, 2), (2_000_000, 10), (90_000_000, 120)),  # adding to it
        *((20_000, 1), (1_000_000, 1)),  # finishing it
    ],
)
def test_disk_full(path, limit, steps):
    """A full disk is an OSError for the caller; the process lives, the file opens, incomplete."""
    assert run_python(DISK_FULL, path, limit, steps).split() == ["OSError", "refused"]
    assert list(path.parent.iterdir()) in ([], [path])
    if path.exists():
        with PredictionFile(path) as predictions:
            assert not predictions.complete
            assert predictions.rows % 1000 == 0
            assert predictions.rows * 1028 <= limit
            assert (predictions["a"][:] == 1).all()
            assert predictions["b"][:].tolist() == [1] * predictions.rows


def test_killed_at_any_moment(path):
    """After SIGKILL the file opens, has whole steps only, and may be replaced at once."""
    code = (
        PREAMBLE
        + """
writer = PredictionFileWriter(path, mode="w")
for number in range(10**6):
    index = np.arange(number * 1000, (number + 1) * 1000)
    writer.append({"a": np.repeat(index[:, None], 256, axis=1).astype("f4"), "b": index})
    if number in (0, 80, 150):
        print(number, flush=True)
"""
    )
    for moment in ("0", "80", "150"):
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.stdout.readline().strip() != moment:
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        with PredictionFile(path) as predictions:
            rows = predictions.rows
            assert not predictions.complete
            assert rows % 1000 == 0
            np.testing.assert_array_equal(predictions["b"][:], np.arange(rows))
            np.testing.assert_array_equal(predictions["a"][:, 255], np.arange(rows))
        with pytest.raises(ValueError, match="interrupted"):
            PredictionFileWriter(path, mode="a")
    write(path, [make_step(0, 5)], mode="w")
    check_rows(path, 5)


@pytest.mark.parametrize("how", ["", "del writer", "raise SystemExit(0)"])
def test_exit_without_closing(path, how):
    """A program that just ends does so quietly; its file opens and is incomplete."""
    step = "writer.append({'a': np.zeros((4, 3), 'f4'), 'b': np.arange(4, dtype='i4')})"
    run_python(f"writer = PredictionFileWriter(path)\n{step}\n{how}", path)
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        assert predictions["b"][:].tolist() in ([], [0, 1, 2, 3])
    write(path, [make_step(0, 5)], mode="w")
    check_rows(path, 5)


def test_a_failed_file_is_not_finished(path, monkeypatch):
    """`finish` after a step that failed halfway raises an error; the file stays incomplete."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, 5))
    with monkeypatch.context() as patch:
        patch.setattr(ChunkWriter, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.append(make_step(5, 5))
    with pytest.raises(ValueError, match="finished only if every step was written"):
        writer.finish()
    writer.finish()
    check_rows(path, 5, complete=False)
