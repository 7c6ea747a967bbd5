import contextlib

import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter
from kerasext.storage.writing import skipped_ids as known_ids
from kerasext.storage.writing.skipped_ids import SkippedIds

IDS = np.array([f"id-{number}" for number in range(100)], "S")


def write(path, ids=IDS, *, kept=None, first=0):
    """Writes an interrupted file, of which `first` rows are of an earlier call."""
    with contextlib.ExitStack() as stack:
        for mode, part in (("x", slice(0, first)), ("a", slice(first, len(ids)))):
            if part.stop == 0:
                continue
            writer = PredictionFileWriter(path, mode=mode)
            stack.callback(writer.close)
            step = {"labels": np.zeros(len(ids[part]), np.int8), "ids": ids[part]}
            if kept is not None:
                rows = kept[(kept >= part.start) & (kept < part.stop)]
                step = {name: array[rows - part.start] for name, array in step.items()}
                step["row"] = rows
            writer.append(step, data_rows=len(ids[part]))
            if mode == "x":
                writer.finish()


def check(path, *steps):
    """Compares the ids of steps."""
    known = SkippedIds(path)
    with contextlib.closing(known):
        for ids in steps:
            known.check(ids)


@pytest.mark.parametrize("ids", [IDS, np.arange(100) + 2**40], ids=["text", "numbers"])
@pytest.mark.parametrize("block", [7, 65536])
def test_the_same(ids, block, path, monkeypatch):
    """Ids that come again in the same order pass, whatever the steps and the blocks read."""
    monkeypatch.setattr(known_ids, "_BLOCK_ROWS", block)
    write(path, ids)
    check(path, ids[:1], ids[1:30], ids[30:30], ids[30:99])


def test_another_width(path):
    """Ids of a step may be stored wider than its longest one."""
    write(path, IDS.astype("S64"))
    check(path, IDS[:50])


@pytest.mark.parametrize("block", [7, 65536])
def test_another_id(block, path, monkeypatch):
    """The first id that differs is named with the row it should be in."""
    monkeypatch.setattr(known_ids, "_BLOCK_ROWS", block)
    write(path)
    wrong = IDS.copy()
    wrong[[40, 41]] = wrong[[41, 40]]
    with pytest.raises(ValueError, match=r"'id-40' in row 40\. Received: the id 'id-41'"):
        check(path, wrong[:30], wrong[30:60])


def test_numbers_for_strings(path):
    """Ids of another type are others."""
    write(path)
    with pytest.raises(ValueError, match=r"'id-0' in row 0\. Received: the id 0"):
        check(path, np.arange(10))


def test_of_the_last_call(path):
    """Only ids of the call that was interrupted are compared."""
    write(path, first=20)
    check(path, IDS[20:50], IDS[50:90])


@pytest.mark.parametrize("first", [0, 25])
@pytest.mark.parametrize("block", [7, 65536])
def test_rows_that_were_not_kept(first, block, path, monkeypatch):
    """Of rows that were not all kept, the ids of those that were are compared."""
    monkeypatch.setattr(known_ids, "_BLOCK_ROWS", block)
    kept = np.array([0, 1, 5, 24, 25, 26, 60, 61, 90, 99])
    write(path, kept=kept, first=first)
    other = IDS.copy()
    other[[2, 59, 62]] = b"?"  # which the file does not know
    check(path, other[first:50], other[50:60], other[60:61], other[61:95])
    other[90] = b"?"
    with pytest.raises(ValueError, match=r"'id-90' in row 8\. Received: the id '\?'"):
        check(path, other[first:60], other[60:95])
