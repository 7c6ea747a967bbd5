"""Steps whose rows differ in shape, handed to the thread that writes."""

import threading

import numpy as np
import pytest
from held_writer import Gate, TellingWriter

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows

QUEUE = 1 << 20


def dense(lengths):
    """Steps of two dense rows each, of these lengths."""
    return [{"x": np.full((2, length), length, "f4"), "n": np.arange(2)} for length in lengths]


def ragged(lengths):
    """The same rows, as a mapping that needs no conversion."""
    return [{**step, "x": RaggedRows.of(step["x"])} for step in dense(lengths)]


def make(path, *, to_arrays=dict, ragged=("x",), queue_bytes=QUEUE, **options):
    """A background writer that commits at the end only."""
    return TellingWriter(
        PredictionFileWriter(path, ragged=ragged),
        to_arrays=to_arrays,
        queue_bytes=queue_bytes,
        commit_interval=60.0,
        **options,
    )


def size_of(step):
    """Bytes of a step."""
    return sum(rows.nbytes for rows in step.values())


LENGTHS = {
    "small": [3, 0, 5, 5, 1] * 300,
    "large": [300_000, 0, 70_000, 3, 300_000],
    "equal": [4] * 1000,
}


@pytest.mark.parametrize("kind", [dense, ragged])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_every_step_arrives_in_order(lengths, kind, path):
    """The file holds the rows of every step, whether they were put together or not."""
    lengths = LENGTHS[lengths]
    background = make(path, step_bytes=size_of)
    for step in kind(lengths):
        background.append(step, 2)
    background.finish()
    with PredictionFile(path) as predictions:
        assert predictions.rows == 2 * len(lengths)
        found = predictions["x"][:]
        assert [row.shape for row in found] == [(length,) for length in lengths for _ in range(2)]
        assert all((row == len(row)).all() for row in found)
        np.testing.assert_array_equal(predictions["n"], [0, 1] * len(lengths))


@pytest.mark.parametrize("kind", [dense, ragged])
def test_small_steps_are_put_together(kind, path, monkeypatch):
    """Steps whose shapes differ cost no more calls of the writer than others do."""
    gate = Gate()
    background = make(path, to_arrays=gate, step_bytes=size_of)
    calls = []
    append = background.writer.append
    monkeypatch.setattr(
        background.writer,
        "append",
        lambda *step, **known: calls.append(1) or append(*step, **known),
    )
    for step in kind([3, 1, 4] * 200):
        background.append(step, 2)
    gate.open.set()
    background.finish()
    assert len(calls) < 10


def test_the_queue_counts_the_bytes_of_each_step(path):
    """After a first step of short rows, long ones fill the queue as what they are."""
    gate = Gate()
    steps = dense([1, *[100_000] * 5])  # 800 kB each
    background = make(path, to_arrays=gate, step_bytes=size_of)
    for step in steps[:2]:
        background.append(step, 2)
    brought = []

    def append_all():
        for step in steps[2:]:
            background.append(step, 2)
            brought.append(step)

    thread = threading.Thread(target=append_all, daemon=True)
    thread.start()
    assert background.is_waited_for.wait(30), "nothing held it back"
    assert len(brought) < 4
    gate.open.set()
    thread.join(30)
    background.finish()
    assert background.writer.caller.stalled_seconds > 0
    with PredictionFile(path) as predictions:
        assert predictions.rows == 12


def test_short_steps_after_a_long_one_do_not_wait(path):
    """Steps of few bytes pass while the thread is held, however large the first one was."""
    gate = Gate()
    background = make(path, to_arrays=gate, step_bytes=size_of)
    for step in dense([500_000, *[1] * 100]):
        background.append(step, 2)
    assert background.writer.caller.stalled_seconds == 0
    gate.open.set()
    background.finish()


def test_what_was_not_asked_for_ends_it_with_the_rows_before(path):
    """Without `ragged` the first step of another shape is named, and what came before is kept."""
    gate = Gate()
    background = make(path, to_arrays=gate, ragged=False)
    gate.open.clear()
    for step in dense([3] * 7 + [4, 4, 3]):
        background.append(step, 2)
    gate.open.set()
    with pytest.raises(ValueError, match=r"'x' must have the same row shape.*`ragged=\['x'\]`"):
        background.finish()
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (14, False)
        assert predictions["x"].shape == (14, 3)
