import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from kerasext.shards import index_shards, verify_index
from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.format import links as hard_links
from kerasext.storage.format.layout import (
    SHARD_CHECKSUM,
    SHARD_FACTS,
    SHARD_HEAPS,
    SHARD_NAMES,
    SHARD_RUNS,
    SHARD_TABLES,
    SHARDS,
)
from kerasext.storage.reading import shards as open_shards
from kerasext.storage.reading.index_heaps import find_heaps
from kerasext.storage.reading.index_source import is_index
from kerasext.storage.reading.shards import checksum
from kerasext.storage.writing.skipped_ids import SkippedIds

ROWS = 200
VALUES = np.random.default_rng(0).random((ROWS, 3), "f4")
IDS = np.random.default_rng(1).permutation(ROWS)
BY_ID = VALUES[np.argsort(IDS)]


@pytest.fixture
def folder(tmp_path):
    """A folder of ten shards."""
    made = tmp_path / "job"
    made.mkdir()
    for number in range(10):
        part = slice(number * 20, number * 20 + 20)
        writer = PredictionFileWriter(made / f"{number}.h5")
        writer.append({"probabilities": VALUES[part], "ids": IDS[part]})
        writer.finish()
    return made


@pytest.fixture
def index(folder):
    """An index of them, sorted by id."""
    return index_shards(folder)


def replace(path, table, values):
    """Replaces a table of an index."""
    with h5py.File(path, "r+") as file:
        values = np.asarray(values, file[table].dtype if file[table].dtype.kind == "i" else None)
        del file[table]
        chunks = tuple(max(length, 1) for length in values.shape)
        file.create_dataset(table, data=values, chunks=chunks)
        tables = [file[path][:] for path in SHARD_TABLES]
        file[SHARDS].attrs[SHARD_CHECKSUM] = checksum(tables)


def seal(path):
    """Makes the checksums of an index those of what it is, as one who means harm would."""
    replace(path, SHARD_HEAPS, find_heaps(path))


def table(path, name):
    """A table of an index."""
    with h5py.File(path) as file:
        return file[name][:]


@pytest.mark.parametrize("most", [1, 3, 128])
def test_every_key(most, index, monkeypatch):
    """Whatever rows are chosen, they are those of the shards, however few are open at once."""
    monkeypatch.setattr(open_shards, "_MOST_OPEN", most)
    with PredictionFile(index) as predictions:
        output = predictions["probabilities"]
        for key in (
            slice(None),
            slice(13, 170, 7),
            slice(180, 3, -4),
            slice(50, 50),
            [5, 199, 5, 0],
            7,
            -1,
            (slice(3, 90), 1),
            (slice(3, 90), [0, 2]),
            ([8, 9], [1, 2]),
            (Ellipsis, 0),
            np.arange(ROWS) % 3 == 0,
        ):
            np.testing.assert_array_equal(output[key], BY_ID[key], strict=True)
        batches = [step["probabilities"] for step in predictions.iter_batches(33)]
        np.testing.assert_array_equal(np.concatenate(batches), BY_ID)
        assert sum(len(step["ids"]) for step in predictions.follow(timeout=1)) == ROWS
        predictions.refresh()
        assert predictions["ids"][:].tolist() == list(range(ROWS))


@pytest.mark.parametrize("dtype", ["f4", "c8", "i2"])
def test_whole_chunks(dtype, tmp_path):
    """Shards of several chunks each are read in place, to the same rows."""
    values = (np.random.default_rng(0).random((6000, 512)) * 9999).astype(dtype)
    for number in range(2):
        writer = PredictionFileWriter(tmp_path / f"{number}.h5")
        writer.append({"p": values[number * 3000 : number * 3000 + 3000]})
        writer.finish()
    with PredictionFile(index_shards(tmp_path)) as predictions:
        assert predictions["p"].rows_at_once < 3000
        for key in (slice(None), slice(10, 5990), slice(None, None, -1)):
            np.testing.assert_array_equal(predictions["p"][key], values[key], strict=True)
        (tmp_path / "1.h5").write_bytes(b"")  # what is open is read no further than it goes
        with pytest.raises(ValueError, match=r"damaged.*1\.h5"):
            predictions["p"][:]


def test_few_files_are_open(index, monkeypatch):
    """No more files stay open than are said to."""
    monkeypatch.setattr(open_shards, "_MOST_OPEN", 3)
    before = len(os.listdir("/dev/fd"))
    with PredictionFile(index) as predictions:
        predictions["probabilities"][:]
        assert len(os.listdir("/dev/fd")) == before + 1 + 3
    assert len(os.listdir("/dev/fd")) == before


def test_threads(index, monkeypatch):
    """Several threads read from one file, each what it asks for."""
    monkeypatch.setattr(open_shards, "_MOST_OPEN", 2)

    def read(seed):
        rows = np.random.default_rng(seed).integers(0, ROWS, 20)
        return bool((predictions["probabilities"][rows] == BY_ID[rows]).all())

    with PredictionFile(index) as predictions, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(12)))


def test_closed(index):
    """A closed file says so."""
    predictions = PredictionFile(index)
    output = predictions["probabilities"]
    predictions.close()
    with pytest.raises(ValueError, match="was closed"):
        output[:]


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_shard_that_changes_later(change, index, folder):
    """A shard that is opened only when it is read is looked at then: no row is a fill value."""
    with PredictionFile(index) as predictions:
        content = (folder / "4.h5").read_bytes()
        (folder / "4.h5").unlink()
        if change == "changed":
            (folder / "4.h5").write_bytes(content + b"\0")
        with pytest.raises(ValueError, match=rf"'4\.h5': it (is|has) {change}"):
            predictions["probabilities"][:]


def test_damaged_rows(index, folder):
    """`verify` names the shard whose rows are not those that were written."""
    with h5py.File(folder / "7.h5") as file:
        place = file["probabilities"].id.get_chunk_info(0).byte_offset
    with (folder / "7.h5").open("r+b") as file:
        file.seek(place)
        file.write(b"\x55" * 8)
    with (
        PredictionFile(index) as predictions,
        pytest.raises(ValueError, match=r"'7\.h5': the rows of 'probabilities' are not those"),
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
    with pytest.raises(ValueError, match="the list of its shards"):
        PredictionFile(index)


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, 10), (0, -1), (1, -1), (1, 20), (1, 2**62), (2, 0), (2, -3), (2, 21), (2, 2**62)],
)
def test_hostile_runs(column, value, index):
    """Runs must be of rows that there are, and all rows of the index."""
    runs = table(index, SHARD_RUNS)
    runs[3, column] = value
    replace(index, SHARD_RUNS, runs)
    with pytest.raises(ValueError, match=r"the list of its shards: .*rows of the index"):
        PredictionFile(index)


@pytest.mark.parametrize("facts", [np.zeros((10, 3)), np.zeros((9, 4)), np.full((10, 4), -1)])
def test_hostile_facts(facts, index):
    """Facts must be some for each shard."""
    replace(index, SHARD_FACTS, facts)
    with pytest.raises(ValueError, match="the list of its shards"):
        PredictionFile(index)


def test_missing_table(index):
    """An index without one of its tables is damaged."""
    with h5py.File(index, "r+") as file:
        del file[SHARD_RUNS]
    with pytest.raises(ValueError, match="must be a dataset"):
        PredictionFile(index)


def test_virtual_datasets_are_not_followed(index, folder):
    """Rows come from the shards that are listed, never from where a virtual dataset leads."""
    writer = PredictionFileWriter(folder.parent / "secret.h5")
    writer.append({"probabilities": np.full((ROWS, 3), 7, "f4")})
    writer.finish()
    layout = h5py.VirtualLayout((ROWS, 3), "f4")
    layout[:] = h5py.VirtualSource("../secret.h5", "probabilities", shape=(ROWS, 3))
    with h5py.File(index, "r+") as file:
        del file["probabilities"]
        file.create_virtual_dataset("probabilities", layout)
    seal(index)
    with h5py.File(index) as file:
        assert (file["probabilities"][:] == 7).all()
    with PredictionFile(index) as predictions:
        np.testing.assert_array_equal(predictions["probabilities"][:], BY_ID)


@pytest.mark.parametrize("name", ["probabilities", "other", "_kerasext/sums/ids", SHARD_RUNS])
@pytest.mark.parametrize("target", ["index.h5", "0.h5"])
def test_virtual_datasets_without_end(name, target, index, folder):
    """One that grows by a file for each number, for which HDF5 would look for ever."""
    endless, rows = h5py.h5s.UNLIMITED, h5py.h5s.create_simple((20, 3))
    space = h5py.h5s.create_simple((ROWS, 3), (endless, 3))
    space.select_hyperslab((0, 0), (endless, 1), (20, 1), (20, 3))
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_virtual(space, b"%b.h5", b"probabilities", rows)
    with h5py.File(folder / target, "r+") as file:
        if name in file:
            del file[name]
        place = file.require_group(name.rpartition("/")[0] or "/").id
        h5py.h5d.create(place, name.rpartition("/")[2].encode(), h5py.h5t.IEEE_F32LE, space, layout)
    if target == index.name and name != SHARD_RUNS:
        seal(index)
    for path in {index, folder / target}:
        with (
            pytest.raises(ValueError, match=r"without end|it has changed|must be a dataset"),
            PredictionFile(path) as predictions,
        ):
            predictions.verify()


def test_a_virtual_dataset_of_very_many_parts(index, monkeypatch):
    """No more parts are looked at than an index has."""
    monkeypatch.setattr(hard_links, "MOST_RUNS", 5)
    with pytest.raises(ValueError, match=r"is made of .* parts of other files"):
        PredictionFile(index)


@pytest.mark.parametrize("name", ["probabilities", "ids"])
def test_sums_that_are_elsewhere(name, folder):
    """Sums are read from the file itself, from no other."""
    path = folder / "0.h5"
    with h5py.File(path, "r+") as file:
        sums = file[f"_kerasext/sums/{name}"]
        layout = h5py.VirtualLayout(sums.shape, sums.dtype)
        layout[:] = h5py.VirtualSource("../secret.h5", "sums", shape=sums.shape)
        del file[sums.name]
        file.create_virtual_dataset(f"_kerasext/sums/{name}", layout)
    with (
        PredictionFile(path) as predictions,
        pytest.raises(ValueError, match=f"sums of '{name}': .* is a virtual dataset"),
    ):
        predictions.verify()


@pytest.mark.parametrize("place", [SHARD_NAMES, SHARD_FACTS, SHARD_RUNS, b"GCOL"])
def test_changed_numbers(place, index):
    """A number that leads to another row, or to what HDF5 dies of, is never followed."""
    content = bytearray(index.read_bytes())
    if isinstance(place, bytes):
        start = content.index(place) + 16
    else:
        with h5py.File(index) as file:
            start = file[place].id.get_chunk_info(0).byte_offset
    content[start] ^= 1
    index.write_bytes(content)
    with pytest.raises(ValueError, match=r"the list of its shards: .*not what was written"):
        PredictionFile(index)


def test_index_without_checksum(index):
    """What has none is not believed."""
    with h5py.File(index, "r+") as file:
        del file[SHARDS].attrs[SHARD_CHECKSUM]
    with pytest.raises(ValueError, match="it is not what was written"):
        PredictionFile(index)


@pytest.mark.parametrize("heap", [[0, 2**40, 0], [-1, 4, 0], [2**40, 4, 0], [0, -4, 0], [0, 8]])
def test_hostile_heaps(heap, index):
    """What is looked at before HDF5 reads it must be in the file."""
    replace(index, SHARD_HEAPS, [heap])
    with pytest.raises(ValueError, match="the list of its shards"):
        PredictionFile(index)


def test_output_that_no_shard_has(index):
    """An output of other names, shapes or dtypes than those of the shards is an error, not rows."""
    with h5py.File(index, "r+") as file:
        other = h5py.VirtualLayout((ROWS, 3), "f4")
        other[:1] = h5py.VirtualSource("0.h5", "other", shape=(20, 3))[:1]
        file.create_virtual_dataset("other", other)
        layout = h5py.VirtualLayout((ROWS, 3), "f8")
        layout[:1] = h5py.VirtualSource("0.h5", "probabilities", shape=(20, 3))[:1]
        del file["probabilities"]
        file.create_virtual_dataset("probabilities", layout)
    seal(index)
    with PredictionFile(index) as predictions:
        with pytest.raises(ValueError, match="dtype float32"):
            predictions["probabilities"][:]
        with pytest.raises(ValueError, match=r"'0\.h5': it has no output 'other'"):
            predictions.verify()


def test_output_that_is_larger_than_the_shards(index):
    """No memory is asked for rows that can't be in the shards."""
    with h5py.File(index, "r+") as file:
        layout = h5py.VirtualLayout((ROWS, 2**29), "f4")
        layout[:1] = h5py.VirtualSource("0.h5", "probabilities", shape=(20, 2**29))[:1]
        del file["probabilities"]
        file.create_virtual_dataset("probabilities", layout)
    seal(index)
    with PredictionFile(index) as predictions:
        for rows in (slice(None), slice(1), slice(0, 50, 2)):
            with pytest.raises(ValueError, match=r"rows of shape \(3,\)"):
                predictions["probabilities"][rows]


def test_virtual_datasets_of_other_files(tmp_path, folder):
    """A file that is no index has no virtual datasets."""
    with h5py.File(folder / "0.h5", "r+") as file:
        layout = h5py.VirtualLayout((20, 3), "f4")
        layout[:] = h5py.VirtualSource("1.h5", "probabilities", shape=(20, 3))
        file.create_virtual_dataset("more", layout)
    with pytest.raises(ValueError, match="must be stored in chunks, and is a virtual dataset"):
        PredictionFile(folder / "0.h5")


def test_index_of_itself(index, folder):
    """A shard is never an index, even if all that is said of it is true."""
    path = index.replace(folder / "x.h5")
    size = path.stat().st_size
    with h5py.File(path, "r+") as file:
        record = file["_kerasext/record"]
        facts = [ROWS, size, int(record["checksum"]), record.id.get_offset()]
        names = file[SHARD_NAMES][:]
        names[0] = b"x.h5"
        file[SHARD_NAMES][:] = names
        file[SHARD_FACTS][0] = facts
    seal(path)
    assert path.stat().st_size == size
    with pytest.raises(ValueError, match=r"'x\.h5': .*this is an index of other files"):
        verify_index(path)
    with (
        PredictionFile(path) as predictions,
        pytest.raises(ValueError, match="is a virtual dataset"),
    ):
        predictions["probabilities"][:]


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
