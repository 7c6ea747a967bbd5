import os

import numpy as np
import pytest

from kerasext.shards import index_shards, merge_shards
from kerasext.storage import PredictionFile


def index(folder, expected_ids):
    """Makes an index."""
    return index_shards(folder, expected_ids=expected_ids)


def merge(folder, expected_ids):
    """Makes a file of all rows."""
    return merge_shards(folder, folder.parent / "merged.h5", expected_ids=expected_ids)


@pytest.fixture(params=[index, merge], ids=["index", "merge"])
def join(request):
    """Both ways to make one file of many."""
    return request.param


@pytest.fixture
def of_ids(folder, tools):
    """Writes a folder with a shard for each array of ids."""

    def write(*parts):
        for number, ids in enumerate(parts):
            tools.write(folder / f"{number}.h5", {"labels": np.zeros(len(ids)), "ids": ids})
        return folder

    return write


def assert_refused(join, folder, expected_ids, match):
    """Nothing appears, and no shard is touched."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=match):
        join(folder, expected_ids)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert os.listdir(folder.parent) == [folder.name]


@pytest.mark.parametrize(
    "make",
    [
        lambda ids: ids,
        lambda ids: ids[::-1].astype("u1"),
        lambda ids: ids.astype(object)[:, None],
        lambda ids: ids.tolist(),
        lambda _: range(20),
        lambda _: range(19, -1, -1),
        lambda ids: set(ids.tolist()),
        lambda ids: (value for value in ids),
    ],
)
def test_integers(make, join, of_ids):
    """Every kind of iterable of all ids, in any order and of any dtype."""
    ids = np.random.default_rng(0).permutation(20)
    with PredictionFile(join(of_ids(ids[:3], ids[3:3], ids[3:]), make(ids))) as predictions:
        assert predictions["ids"][:].tolist() == list(range(20))


@pytest.mark.parametrize("make", [list, tuple, np.array, set, iter, dict.fromkeys])
def test_strings(make, join, of_ids):
    """So of strings, however wide those of each shard are."""
    texts = ["größe", "b", "a longer one", "c"]
    folder = of_ids(np.array(texts[:2]), np.array(texts[2:]))
    with PredictionFile(join(folder, make(texts[::-1]))) as predictions:
        assert sorted(predictions["ids"][:].tolist()) == sorted(texts)


def test_ids_of_another_file(join, of_ids):
    """The ids of a prediction file are an array as any other."""
    folder = of_ids(np.array(["a", "b"]), np.array(["c"]))
    with PredictionFile(index_shards(folder)) as predictions:
        join(folder, predictions["ids"])


def test_columns_of_pandas(join, of_ids):
    """So is a column of a data frame."""
    pandas = pytest.importorskip("pandas")
    join(of_ids(np.array(["a", "b"])), pandas.Series(["b", "a"], index=[7, 8]))


@pytest.mark.parametrize(
    ("expected", "match"),
    [
        (range(5), r"with 4 missing"),
        (range(3), r"with 3 not expected"),
        ([0, 1, 2, 9], r"with 9 missing; and 3 not expected"),
        (range(1000), r"with 4, 5, 6, 7, 8 and 991 others missing"),
        ([-1, 0, 1, 2, 3], "with -1 missing"),
        ([0, 1, 2, 3, 2**63], f"with '{2**63}' missing"),
        ([], "with 0, 1, 2, 3 not expected"),
        ([0, 1, 2, 2, 3, 3, 3], "each id once.*Received: 2, 3, 3 more than once"),
        (["0", "1", "2", "3"], "Received: '0', '1', '2', '3'; and the files have 3, 0, 2, 1"),
    ],
)
def test_other_integers(expected, match, join, of_ids):
    """Ids that are missing or too many are named, some of many."""
    assert_refused(join, of_ids(np.array([3, 0]), np.array([2, 1])), expected, match)


def test_large_integers(join, of_ids):
    """Integers of 64 bits are compared as such: as floats these would be equal."""
    folder = of_ids(np.array([2**63, 2**63 + 2], "u8"))
    join(folder, [2**63 + 2, 2**63])
    for path in folder.parent.glob("*.h5"):
        path.unlink()
    (folder / "index.h5").unlink(missing_ok=True)
    assert_refused(join, folder, [2**63, 2**63 + 1], f"with {2**63 + 1} missing; and {2**63 + 2} n")
    assert_refused(join, folder, [-5], "'-5' missing; and .* not expected")


@pytest.mark.parametrize(
    ("expected", "match"),
    [
        (["a", "größe", "c"], "with 'c' missing"),
        (["größe"], "with 'a' not expected"),
        (["a", "Größe"], "with 'Größe' missing; and 'größe' not expected"),
        ([1, 2], "Received: 1, 2; and the files have 'a', 'größe'"),
    ],
)
def test_other_strings(expected, match, join, of_ids):
    """So are strings."""
    assert_refused(join, of_ids(np.array(["a"]), np.array(["größe"])), expected, match)


def test_a_shard_that_was_lost(join, job):
    """What only the ids can tell: a whole file that is not there."""
    job.shards[0].unlink()
    first = sorted(job.rows["ids"][:30])[0].decode()
    assert_refused(join, job.folder, job.rows["ids"], f"with '{first}', .* and 25 others missing")


def test_no_rows(join, of_ids):
    """Of no rows none may be expected, or all are missing."""
    folder = of_ids(np.zeros(0, "i8"))
    assert_refused(join, folder, ["a"], "with 'a' missing")
    join(folder, [])


def test_files_without_ids(join, folder, tools):
    """Without ids there is nothing to compare with."""
    tools.write(folder / "a.h5", {"labels": np.arange(3)})
    assert_refused(join, folder, range(3), r"store them with `ids`.* of files without ids")


@pytest.mark.parametrize("expected", [5, "abc", [1.5], [1, "a"], np.zeros(3), [None]])
def test_what_no_ids_are(expected, join, of_ids):
    """Ids are integers or strings, and a string is not taken for its letters."""
    with pytest.raises(TypeError, match="`expected_ids` must be"):
        join(of_ids(np.arange(3)), expected)


def test_an_older_index_stays(of_ids):
    """An index that is there is replaced by no index that lacks rows."""
    folder = of_ids(np.arange(3))
    before = index_shards(folder).read_bytes()
    with pytest.raises(ValueError, match="3 missing"):
        index_shards(folder, expected_ids=range(4))
    assert (folder / "index.h5").read_bytes() == before
