import os

import numpy as np
import pytest

from kerasext.shards import index_shards, merge_shards
from kerasext.shards.shard_folder import ShardFolder
from kerasext.storage import PredictionFile, RaggedRows

JOIN = {
    "index": index_shards,
    "merge": lambda folder: merge_shards(folder, folder.parent / "merged.h5"),
}


@pytest.fixture(params=JOIN)
def join(request):
    """Both ways to make one file of many."""
    return JOIN[request.param]


def labels(*values, **others):
    """Rows with labels."""
    return {"labels": np.array(values, "i4"), **others}


def assert_refused(join, folder, match):
    """A folder is refused, and nothing in it or beside it changes."""
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=match):
        join(folder)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert os.listdir(folder.parent) == [folder.name]


def test_no_folder(join, folder):
    """A folder that is not there, or is a file."""
    with pytest.raises(FileNotFoundError):
        join(folder / "missing")
    (folder / "file").touch()
    with pytest.raises(NotADirectoryError):
        join(folder / "file")


def test_no_shards(join, folder):
    """A folder without a prediction file, though it may have hidden ones."""
    (folder / ".hidden").touch()
    assert_refused(join, folder, "must have at least one prediction file")


def test_foreign_files(join, folder, tools):
    """Everything that is no prediction file is named."""
    tools.write(folder / "a.h5", labels(1, 2))
    (folder / "notes.txt").write_text("n")
    (folder / "empty.h5").touch()
    (folder / "inner").mkdir()
    (folder / "link.h5").symlink_to(folder / "a.h5")
    match = r"'empty\.h5': .*'inner': it is a folder, .*'link\.h5': .*'notes\.txt': "
    assert_refused(join, folder, match)


def test_unfinished_files(join, folder, tools):
    """A shard whose job has not come to its end is named, with its rows."""
    tools.write(folder / "a.h5", labels(1, 2))
    tools.write(folder / "b.h5", labels(1, 2, 3), finish=False)
    assert_refused(join, folder, r"'b\.h5': it is unfinished, with 3 rows")


def test_a_lock_that_was_left(join, folder, tools):
    """The lock of a shard that a writer has open, or had when it was killed, is named as one."""
    tools.write(folder / "a.h5", labels(1, 2))
    (folder / "a.h5.lock").write_text("1234")
    assert_refused(join, folder, r"'a\.h5\.lock': a writer has 'a\.h5' open, or was killed")


def test_ragged_text_of_other_widths(join, folder, tools):
    """Text of rows that differ in shape may be wider in one shard than in another."""
    rows = [RaggedRows(np.array([text], "S"), np.ones((1, 1), np.int64)) for text in ("a", "bcd")]
    for number, text in enumerate(rows):
        width = {"dtypes": {"words": f"S{8 - number}"}}
        tools.write(folder / f"{number}.h5", {"words": text}, ragged=True, **width)
    with PredictionFile(join(folder)) as predictions:
        assert [row.tolist() for row in predictions["words"][:]] == [["a"], ["bcd"]]
        assert predictions["words"].dtype == "U8"


def test_damaged_files(join, folder, tools):
    """A shard that is cut short is named."""
    path = tools.write(folder / "a.h5", {"p": np.random.default_rng(0).random((9999, 9))})
    path.write_bytes(path.read_bytes()[:-20000])
    assert_refused(join, folder, r"'a\.h5': .*cut short")


@pytest.mark.parametrize("kind", ["S", "i8"])
@pytest.mark.parametrize("sort", [True, False])
def test_an_id_twice(kind, sort, folder, tools):
    """An id in two shards is named, with both of them."""
    for name, ids in (("a.h5", ["1", "3"]), ("b.h5", ["4", "3"])):
        tools.write(folder / name, labels(0, 0, ids=np.array(ids).astype(kind)))
    shown = "'3'" if kind == "S" else "3"
    match = rf"'a\.h5' and 'b\.h5' have the id {shown}$"
    assert_refused(lambda folder: index_shards(folder, sort=sort), folder, match)
    assert_refused(JOIN["merge"], folder, match)


@pytest.mark.parametrize(
    ("rows", "options", "match"),
    [
        ({"other": np.zeros(2, "i4")}, {}, r"'b\.h5' has the outputs \['other'\], and 'a\.h5'"),
        (labels(1, ids=np.zeros(1, "i8")), {}, r"has the outputs \['ids', 'labels'\]"),
        ({"labels": np.zeros((2, 1), "i4")}, {}, r"row shape \(1,\), .* of row shape \(\)"),
        ({"labels": np.zeros(2, "i8")}, {}, "dtype int64, .* dtype int32"),
        ({"labels": np.zeros(2, "f4")}, {}, "dtype float32"),
        ({"labels": np.array(["a"])}, {}, r"dtype \|S64"),
        (labels(1), {"class_names": {"": ["x", "y"]}}, "other names of classes"),
        (labels(1), {"attributes": {"model_fingerprint": "xyz"}}, "of the model 'xyz'.*'abc'"),
        (labels(1), {"attributes": {}}, "of the model None"),
    ],
    ids=["output", "ids", "shape", "width", "kind", "text", "classes", "model", "no model"],
)
def test_shards_that_differ(rows, options, match, join, folder, tools):
    """Shards that can't be of one run are refused, with what differs."""
    tools.write(folder / "a.h5", labels(1, 2))
    tools.write(folder / "b.h5", rows, **options)
    assert_refused(join, folder, match)


def test_fixed_point_and_whole_numbers(join, folder, tools):
    """Whole numbers that stand for floats are no other whole numbers."""
    tools.write(folder / "a.h5", {"p": np.zeros(2, "f4")}, dtypes={"p": "uint8"})
    tools.write(folder / "b.h5", {"p": np.zeros(2, "u1")})
    assert_refused(join, folder, "uint8, .*uint8 in steps of")


def test_ragged_and_dense(join, folder, tools, ragged):
    """An output of rows of different shapes in one shard must be so in all."""
    tools.write(folder / "a.h5", {"boxes": ragged(4)}, ragged=True)
    tools.write(folder / "b.h5", {"boxes": np.zeros((2, 3), "f4")})
    assert_refused(join, folder, "rows of 1 axes of any length")


def test_names_of_problems_are_few(folder):
    """Of very many problems some are shown, and how many there are besides."""
    for number in range(30):
        (folder / f"{number:02}.txt").touch()
    assert_refused(index_shards, folder, r"'09\.txt'.*; and 20 more$")


@pytest.mark.parametrize("sort", [True, False])
def test_order(job, sort):
    """The runs of rows are as long as they can be, and have every row once."""
    runs = ShardFolder.read(job.folder).sharded_rows(sort=sort).order.runs
    if not sort:
        assert runs.tolist() == [[0, 0, 30], [2, 0, 140], [3, 0, 130]]
        return
    starts = np.array(job.ends)
    rows = [starts[shard] + first + n for shard, first, count in runs for n in range(count)]
    assert rows == np.argsort(job.rows["ids"]).tolist()
    follow = (np.diff(runs[:, 0]) == 0) & (runs[:-1, 1] + runs[:-1, 2] == runs[1:, 1])
    assert not follow.any()


def test_widest_text(folder, tools):
    """Each output is as wide as in the first of the files that have its widest text."""
    for number, width in enumerate([4, 7, 5, 7]):
        rows = {"text": np.array(["a"]), "label": np.array([number])}
        tools.write(folder / f"{number}.h5", rows, dtypes={"text": f"S{width}"})
    shards = ShardFolder.read(folder)
    assert shards.specs["text"].dtype == "S7"
    assert shards.widest == {"text": 1, "label": 0}
