import numpy as np
import pytest

from kerasext.callbacks import duplicate_ids
from kerasext.callbacks.duplicate_ids import find_duplicate_ids
from kerasext.storage import PredictionFileWriter

MANY = 150_000  # more than are read at once


def write(path, ids):
    """Writes a complete file with these ids."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.zeros(len(ids), np.int8), "ids": ids})
    writer.finish()


@pytest.mark.parametrize("dtype", ["S", np.int64, np.uint8])
def test_none(dtype, path):
    """Ids that are all different have no duplicates."""
    write(path, np.random.default_rng(0).permutation(200).astype(dtype))
    assert find_duplicate_ids(path) is None


def test_no_rows(path):
    """A file without rows has no duplicates."""
    write(path, np.zeros(0, np.int64))
    assert find_duplicate_ids(path) is None


@pytest.mark.parametrize("dtype", ["S", np.int64])
def test_found(dtype, path):
    """Their number is told, and two rows of one of them, however far apart."""
    ids = np.random.default_rng(0).permutation(MANY)
    ids[MANY - 1] = ids[7]
    ids[11] = ids[10]
    write(path, ids.astype(dtype))
    found = find_duplicate_ids(path)
    assert found.ids == 2
    assert found.rows in {(7, MANY - 1), (10, 11)}
    assert {str(ids[row]) for row in found.rows} == {str(found.example)}


def test_all_the_same(path):
    """One id in every row is one, told with its first two rows."""
    write(path, np.full(MANY, b"caf\xc3\xa9"))
    assert find_duplicate_ids(path) == (1, "café", (0, 1))


def test_strings_that_differ_in_one_byte(path):
    """Strings are told apart wherever they differ, also beyond the first eight bytes."""
    text = "x" * 20
    ids = np.array([text[:at] + "y" + text[at + 1 :] for at in range(20)] + [text, text[:-1]], "S")
    write(path, ids)
    assert find_duplicate_ids(path) is None


def test_in_several_parts(path, monkeypatch):
    """Where there are too many for the memory, they are looked at in parts."""
    monkeypatch.setattr(duplicate_ids, "_MOST_HASHES", 1000)
    ids = np.random.default_rng(0).permutation(10_000)
    ids[5000:5040] = ids[100:140]
    write(path, ids)
    assert find_duplicate_ids(path).ids == 40


def test_equal_hashes_are_no_duplicates(path, monkeypatch):
    """Other ids that have one hash by chance are not reported."""
    monkeypatch.setattr(duplicate_ids, "_hashes", lambda ids: np.zeros(len(ids), np.uint64))
    write(path, np.arange(200))
    assert find_duplicate_ids(path) is None
