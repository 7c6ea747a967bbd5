import os
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerasext.shards import index_shards, verify_index
from kerasext.storage import PredictionFile, PredictionFileWriter, SkippedIds, is_index
from kerasext.storage.format.layout import (
    PLAIN_OUTPUTS,
    SHARD_FACTS,
    SHARD_NAMES,
    SHARD_OUTPUTS,
    SHARD_RUNS,
    SHARD_WIDEST,
)
from kerasext.storage.format.sealed_table import CHECKSUM, write_table

ROWS = 200
VALUES = np.random.default_rng(0).random((ROWS, 3), "f4")
IDS = np.random.default_rng(1).permutation(ROWS)
BY_ID = VALUES[np.argsort(IDS)]
TABLES = [SHARD_NAMES, SHARD_FACTS, SHARD_RUNS, SHARD_OUTPUTS, SHARD_WIDEST]
LIST = "the list of its shards"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder of ten shards, and an index of them, sorted by id."""
    made = tmp_path_factory.mktemp("original")
    for number in range(10):
        part = slice(number * 20, number * 20 + 20)
        writer = PredictionFileWriter(
            made / f"{number}.h5", class_names=["a", "b", "c"], expected_rows=20
        )
        writer.append({"probabilities": VALUES[part], "ids": IDS[part]})
        writer.finish()
    index_shards(made)
    return made


@pytest.fixture
def folder(original, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(original, tmp_path / "job"))


@pytest.fixture
def index(folder):
    """The index in it."""
    return folder / "index.h5"


def table(path, name):
    """A table of an index."""
    with h5py.File(path) as file:
        return file[name][:]


def replace(path, name, values):
    """Replaces a table of an index, with its checksum."""
    with h5py.File(path, "r+") as file:
        del file[name]
        write_table(file, name, np.asarray(values))


def refuses(path, match=LIST):
    """Asserts that opening an index raises an error that names its path."""
    with pytest.raises(ValueError, match=match) as caught:
        PredictionFile(path)
    assert str(path.parent) in str(caught.value)


def test_what_it_shows(index):
    """Outputs, names of classes and attributes of an index are those of the shards."""
    with PredictionFile(index) as predictions:
        assert list(predictions) == ["ids", "probabilities"]
        assert (predictions.rows, predictions.complete) == (ROWS, True)
        assert predictions.columns == {"ids"}
        assert predictions.class_names == ["a", "b", "c"]
        assert "3 classes: 'a', 'b', 'c'" in repr(predictions)
        predictions.refresh()
        assert sum(len(step["ids"]) for step in predictions.follow(timeout=1)) == ROWS
        predictions.verify()


def test_ids_are_in_the_index(index, folder):
    """Ids are read without opening a shard."""
    with PredictionFile(index) as predictions:
        for number in range(10):
            (folder / f"{number}.h5").unlink()
        assert predictions["ids"][:].tolist() == list(range(ROWS))
        with pytest.raises(ValueError, match="it is missing"):
            predictions["probabilities"]


def test_closed(index):
    """A closed index says so, and so does an output that was taken from it."""
    predictions = PredictionFile(index)
    output, ids = predictions["probabilities"], predictions["ids"]
    output[:]
    predictions.close()
    predictions.close()
    for use in (
        lambda: output[:],
        lambda: output[3],
        lambda: output[0:0],
        lambda: output.rows_at_once,
        lambda: ids[:],
        lambda: pickle.dumps(output),
        lambda: pickle.dumps(predictions),
        lambda: predictions["probabilities"],
        lambda: predictions.class_names,
        predictions.refresh,
        predictions.verify,
    ):
        with pytest.raises(ValueError, match=r"was closed.*index\.h5"):
            use()
    assert "closed" in repr(predictions)


def test_no_file_stays_open(index, folder):
    """Closing an index closes its shards, and so does an error in opening it."""
    before = len(os.listdir("/dev/fd"))
    with PredictionFile(index) as predictions:
        predictions["probabilities"][:]
        predictions.verify()
    (folder / "3.h5").unlink()
    refuses(index, "it is missing")
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_shard_that_changes_later(change, index, folder):
    """A shard that is opened only when it is read is checked then."""
    with PredictionFile(index) as predictions:
        output = predictions["probabilities"]
        content = (folder / "4.h5").read_bytes()
        (folder / "4.h5").unlink()
        if change == "changed":
            (folder / "4.h5").write_bytes(content + b"\0")
        for use in (lambda: output[:], predictions.verify):
            with pytest.raises(ValueError, match=rf"'4\.h5': it (is|has) {change}"):
                use()


def test_damaged_rows(index, folder):
    """`verify` names the shards whose rows are not those that were written."""
    for number in (2, 7):
        with h5py.File(folder / f"{number}.h5") as file:
            place = file["probabilities"].id.get_chunk_info(0).byte_offset
        with (folder / f"{number}.h5").open("r+b") as file:
            file.seek(place)
            file.write(b"\x55" * 8)
    reason = "the rows of 'probabilities' are not those that were written"
    with (
        PredictionFile(index) as predictions,
        pytest.raises(ValueError, match=rf"'2\.h5': {reason}; '7\.h5': {reason}"),
    ):
        predictions.verify()


def test_ids_that_are_not_those_of_the_shards(index):
    """`verify` compares the ids of the index with those of the shards."""
    runs = table(index, SHARD_RUNS)
    same = np.flatnonzero(runs[:, 2] == 1)[:2]
    runs[same] = runs[same[::-1]]
    replace(index, SHARD_RUNS, runs)
    with (
        PredictionFile(index) as predictions,
        pytest.raises(ValueError, match="rows of 'ids' are not those"),
    ):
        predictions.verify()


@pytest.mark.parametrize("name", TABLES)
def test_any_byte_of_a_table(name, index):
    """A table with a changed byte is not believed."""
    with h5py.File(index) as file:
        start, size = file[name].id.get_offset(), file[name].nbytes
    content = bytearray(index.read_bytes())
    for place in {0, 1, 7, 8, size // 2, size - 1} & set(range(size)):
        content[start + place] ^= 1
        index.write_bytes(content)
        refuses(index, f"{LIST}: '{name}' is not what was written")
        content[start + place] ^= 1


@pytest.mark.parametrize("name", TABLES)
def test_missing_table(name, index):
    """An index is damaged if one of its tables, or the checksum of one, is missing."""
    with h5py.File(index, "r+") as file:
        del file[name].attrs[CHECKSUM]
    refuses(index, f"{LIST}: '{name}' has no checksum")
    with h5py.File(index, "r+") as file:
        del file[name]
    refuses(index, f"{LIST}: there is no table '{name}'")


@pytest.mark.parametrize(
    "name",
    ["../secret.h5", "/etc/passwd", "..", "", "a/../0.h5", "1.h5", "\\\\host\\file", b"\xff\xfe"],
)
def test_hostile_names(name, index, folder):
    """An index leads to no file but those beside it, each once."""
    (folder.parent / "secret.h5").write_bytes((folder / "0.h5").read_bytes())
    names = table(index, SHARD_NAMES).astype("S30")
    names[0] = name if isinstance(name, bytes) else name.encode()
    replace(index, SHARD_NAMES, names)
    refuses(index)


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, 10), (0, -1), (1, -1), (1, 20), (1, 2**62), (2, 0), (2, -3), (2, 21), (2, 2**62)],
)
def test_hostile_runs(column, value, index):
    """Runs must be of rows that there are, and all rows of the index."""
    runs = table(index, SHARD_RUNS)
    runs[3, column] = value
    replace(index, SHARD_RUNS, runs)
    refuses(index, f"{LIST}: .*rows of the index")


@pytest.mark.parametrize(
    "runs",
    [np.zeros((0, 3), "i8"), np.zeros((3, 2), "i8"), np.zeros(3, "i8"), np.array(["a"], "S")],
)
def test_runs_of_other_shapes(runs, index):
    """Runs must have three numbers each."""
    replace(index, SHARD_RUNS, runs)
    refuses(index)


def test_more_rows_than_int64_has(index, folder):
    """Lengths whose sum overflows to the right one are not believed."""
    facts = table(index, SHARD_FACTS)
    facts[0, 0] = 2**62
    replace(index, SHARD_FACTS, facts)
    runs = table(index, SHARD_RUNS)
    huge = np.array([[0, 0, 2**62]] * 4)  # 2**64
    replace(index, SHARD_RUNS, np.concatenate([runs, huge]))
    refuses(index, f"{LIST}: .*rows of the index")


@pytest.mark.parametrize(
    "facts", [np.zeros((10, 3), "i8"), np.zeros((9, 4), "i8"), np.full((10, 4), -1), np.eye(10, 4)]
)
def test_hostile_facts(facts, index):
    """Facts must be four for each shard."""
    replace(index, SHARD_FACTS, facts)
    refuses(index)


@pytest.mark.parametrize("field", range(4))
def test_facts_of_another_file(field, index):
    """Each fact must be that of the file."""
    facts = table(index, SHARD_FACTS)
    facts[5, field] += 1
    replace(index, SHARD_FACTS, facts)
    refuses(index, r"'5\.h5': it has changed")


@pytest.mark.parametrize("widest", [[0], [0, 10], [0, -1], [[0, 0]], [0.0, 0.0]])
def test_hostile_widest(widest, index):
    """The shard with the widest text must be one of the shards."""
    replace(index, SHARD_WIDEST, widest)
    refuses(index)


@pytest.mark.parametrize(
    "names", [["a", "a"], ["", "b"], ["..", "b"], ["_kerasext/record", "b"], ["a", "a/b"], ["a"]]
)
def test_hostile_outputs(names, index):
    """The outputs must be names, each of one output."""
    replace(index, SHARD_OUTPUTS, np.array(names, "S20"))
    refuses(index)


def test_output_that_no_shard_has(index, folder):
    """An output of other names, shapes or dtypes than those of the shards is an error, not rows."""
    replace(index, SHARD_OUTPUTS, np.array([b"ids", b"other"]))
    with PredictionFile(index) as predictions:
        with pytest.raises(ValueError, match=r"output 'other': 'other' is gone.*0\.h5"):
            predictions["other"]
        for check in (predictions.verify, lambda: verify_index(index)):
            with pytest.raises(ValueError, match=r"'other' is gone.*0\.h5"):
                check()


def test_shard_of_another_kind(index, folder):
    """Rows of another shape or dtype are an error that names the output."""
    other = folder / "5.h5"
    other.unlink()
    writer = PredictionFileWriter(other)
    writer.append({"probabilities": VALUES[:20].astype("f8"), "ids": IDS[100:120]})
    writer.finish()
    with h5py.File(other) as file:
        record = file["_kerasext/record"]
        facts = [20, other.stat().st_size, int(record["checksum"]), record.id.get_offset()]
    replace(
        index, SHARD_FACTS, [*table(index, SHARD_FACTS)[:5], facts, *table(index, SHARD_FACTS)[6:]]
    )
    with PredictionFile(index) as predictions:
        for use in (lambda: predictions["probabilities"][:], predictions.verify):
            with pytest.raises(
                ValueError, match=r"output 'probabilities' has .*float64, not .*float32"
            ):
                use()


def test_index_of_itself(index, folder):
    """A shard is never an index, even if all that is said of it is true."""
    path = index.replace(folder / "x.h5")
    names, facts = table(path, SHARD_NAMES), table(path, SHARD_FACTS)
    names[0] = b"x.h5"
    replace(path, SHARD_NAMES, names)
    replace(path, SHARD_FACTS, facts)
    with h5py.File(path) as file:
        record = file["_kerasext/record"]
        facts[0] = [ROWS, path.stat().st_size, int(record["checksum"]), record.id.get_offset()]
    # In place: the size must stay.
    with h5py.File(path, "r+") as file:
        file[SHARD_FACTS][:] = facts
        del file[SHARD_FACTS].attrs[CHECKSUM]
        write_table(file, "spare", facts)
        file[SHARD_FACTS].attrs[CHECKSUM] = file["spare"].attrs[CHECKSUM]
        del file["spare"]
    assert path.stat().st_size == facts[0, 1]
    with pytest.raises(ValueError, match=r"'x\.h5': .*this is an index of other files"):
        verify_index(path)
    with PredictionFile(path) as predictions, pytest.raises(ValueError, match="is gone"):
        predictions["probabilities"]


def test_attribute_of_another_type(index):
    """What HDF5 could need any memory for is not read, and the error names the file."""
    with h5py.File(index, "r+") as file:
        file.attrs[PLAIN_OUTPUTS] = "ids"  # of any length
    with (
        PredictionFile(index) as predictions,
        pytest.raises(ValueError, match=rf"fixed width.*{index}"),
    ):
        _ = predictions.columns


@pytest.mark.parametrize("mode", ["a", "resume"])
def test_no_rows_are_added(mode, index):
    """An index has no rows of its own to add more to."""
    before = index.read_bytes()
    with pytest.raises(ValueError, match="this is an index of other files"):
        PredictionFileWriter(index, mode=mode)
    assert index.read_bytes() == before
    with pytest.raises(ValueError, match="this is an index of other files"):
        SkippedIds(index)


def test_is_index(index, folder, tmp_path):
    """An index is known whatever has become of its shards; other files are none."""
    assert not is_index(folder / "0.h5")
    (folder / "0.h5").unlink()
    assert is_index(index)
    (tmp_path / "text").write_text("text")
    assert not is_index(tmp_path / "text")
    assert not is_index(tmp_path / "missing")
