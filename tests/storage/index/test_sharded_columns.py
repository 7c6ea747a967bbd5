import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kerasext.shards import index_shards
from kerasext.storage import FileSource, PredictionFile, PredictionFileWriter, RaggedRows
from kerasext.storage.index import shards

ROWS = 200
RANDOM = np.random.default_rng(0)
VALUES = RANDOM.random((ROWS, 4, 3), "f4")
LENGTHS = RANDOM.integers(0, 4, (ROWS, 2))
RAGGED = [RANDOM.random(shape) for shape in LENGTHS]
KEYS = [
    slice(None),
    slice(13, 170, 7),
    slice(180, 3, -4),
    slice(50, 50),
    slice(90, 20),
    [5, 199, 5, 0],
    [],
    7,
    -1,
    np.arange(ROWS) % 3 == 0,
]
FURTHER_KEYS = [
    (slice(3, 90), 1),
    (slice(3, 90), -1, 2),
    (slice(90, 3, -1), slice(0, 2), 0),
    (slice(3, 90, 4), slice(None), [0, 2]),
    ([8, 9], [1, 2]),
    (5, 1),
    (Ellipsis, 0),
]


def write(path, step, **options):
    """Writes a file of some rows."""
    writer = PredictionFileWriter(path, **options)
    writer.append(step)
    writer.finish()


def ragged(rows):
    """Arrays of different shapes as one."""
    shapes = np.array([row.shape for row in rows], np.int64).reshape(len(rows), -1)
    return RaggedRows(np.concatenate([row.reshape(-1) for row in rows]), shapes)


@pytest.fixture(params=["in order", "dealt out"])
def index(request, tmp_path):
    """An index of seven shards, sorted by id: in ranges, or in runs of one row and of some rows."""
    ids = np.arange(ROWS)
    of_row = ids // 29 if request.param == "in order" else ids * ids % 53 % 7
    for number in range(7):
        rows = np.flatnonzero(of_row == number)
        rows = RANDOM.permutation(rows) if number % 2 else rows
        step = {"p": VALUES[rows], "r": ragged([RAGGED[row] for row in rows]), "ids": ids[rows]}
        write(tmp_path / f"{number}.h5", step, ragged=["r"], expected_rows=8)
    return index_shards(tmp_path)


@pytest.mark.parametrize("most", [1, 3, 128])
def test_every_key(most, index, monkeypatch):
    """Whatever rows are chosen, they are those of the shards, however few are open at once."""
    monkeypatch.setattr(shards, "_MOST_OPEN", most)
    with PredictionFile(index) as predictions:
        output, rows = predictions["p"], predictions["r"]
        assert output.shape == (ROWS, 4, 3)
        for key in [*KEYS, *FURTHER_KEYS]:
            np.testing.assert_array_equal(output[key], VALUES[key], strict=True)
        np.testing.assert_array_equal(np.array(list(output)), VALUES)
        for key in KEYS:
            chosen = np.arange(ROWS)[key]
            if np.ndim(chosen):
                assert_same(rows[key], [RAGGED[row] for row in chosen])
                assert rows.padded(key).shape[0] == len(chosen)
            else:
                assert_same([rows[key]], [RAGGED[chosen]])


def assert_same(found, expected):
    """Lists of arrays are the same."""
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right, strict=True)


@pytest.mark.parametrize("key", [200, -201, (slice(None), 4), (slice(None), 0, 0, 0), "p"])
def test_keys_of_rows_that_there_are_not(key, index):
    """A key that means no rows is an IndexError, as of a file."""
    with PredictionFile(index) as predictions, pytest.raises(IndexError):
        predictions["p"][key]


def test_ragged_outputs(index):
    """Rows of different shapes are read flat, with their sizes, and go to other tools."""
    with PredictionFile(index) as predictions:
        output = predictions["r"]
        assert (output.shape, output.dtype, len(output)) == ((ROWS, None, None), "f8", ROWS)
        flat = output.flat(30, 150)
        np.testing.assert_array_equal(flat.row_shapes, LENGTHS[30:150])
        assert_same(list(flat), RAGGED[30:150])
        np.testing.assert_array_equal(output.row_sizes(30, 150), LENGTHS[30:150].prod(axis=1))
        assert len(output.flat(5, 5)) == len(output.row_sizes(5, 5)) == 0
        frame = predictions.to_pandas(outputs=["r"])
        assert_same(frame["r"].tolist(), RAGGED)
        table = predictions.to_arrow(outputs=["r"])
        assert table["r"].to_pylist() == [row.tolist() for row in RAGGED]
        batches = list(predictions.iter_batches(33))
        assert_same([row for batch in batches for row in batch["r"]], RAGGED)
        predictions.verify()


def test_closed(index):
    """A closed index has no rows to read, not even none."""
    with PredictionFile(index) as predictions:
        output = predictions["r"]
    for use in (
        lambda: output[:],
        lambda: output[0:0],
        lambda: output[[]],
        lambda: output[3],
        lambda: output.flat(0, 3),
        lambda: output.row_sizes(0, 0),
        lambda: pickle.dumps(output),
    ):
        with pytest.raises(ValueError, match=r"was closed.*index\.h5"):
            use()


def test_text_is_as_wide_as_in_the_widest_shard(tmp_path):
    """Text comes whole from any shard, dense or ragged, and so it does if only some are read."""
    texts = np.array(["a", "bcdefghij", "ü"])
    for number, width in enumerate([4, 9, 5]):
        step = {"t": texts[number : number + 1], "r": ragged([texts[number : number + 1]])}
        dtypes = {"t": f"S{width}", "r": f"S{width}"}
        write(tmp_path / f"{number}.h5", step, dtypes=dtypes, ragged=["r"])
    with PredictionFile(index_shards(tmp_path)) as predictions:
        assert predictions["t"].dtype == predictions["r"].dtype == "U9"
        for key in (slice(None), slice(2), [2, 1]):
            assert predictions["t"][key].tolist() == texts[key].tolist()
            assert [row.tolist() for row in predictions["r"][key]] == [[t] for t in texts[key]]
        assert predictions["t"][2] == "ü"
        predictions.verify()


def test_rows_after_an_empty_shard(tmp_path, monkeypatch):
    """Rows are read in blocks as large as the chunks of shards with rows."""
    values = np.arange(3000.0)
    rows = {"p": values, "r": ragged([values[:2]] * 3000)}
    nothing = {"p": values[:0], "r": rows["r"][:0]}
    write(tmp_path / "a.h5", nothing, ragged=["r"], expected_rows=0)
    write(tmp_path / "b.h5", rows, ragged=["r"])
    write(tmp_path / "c.h5", nothing, ragged=["r"], expected_rows=0)
    with PredictionFile(index_shards(tmp_path)) as predictions:
        np.testing.assert_array_equal(predictions["p"], values)
        assert predictions["p"].rows_at_once >= 3000
        sizes = count_reads(monkeypatch)
        assert len(list(predictions["r"])) == 3000
        assert len(sizes) < 10


def test_no_rows(tmp_path):
    """An index of no rows has outputs of no rows."""
    step = {"p": np.zeros((0, 3), "f4"), "r": RaggedRows(np.zeros(0), np.zeros((0, 1), int))}
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, step, ragged=["r"])
    with PredictionFile(index_shards(tmp_path)) as predictions:
        assert predictions["p"][:].shape == predictions["p"][::2].shape == (0, 3)
        assert predictions["p"][[]].shape == (0, 3)
        assert predictions["r"][:] == predictions["r"][[]] == predictions["r"][::-1] == []
        assert list(predictions["p"]) == list(predictions["r"]) == []
        with pytest.raises(IndexError):
            predictions["p"][0]
        predictions.verify()


def test_more_runs_than_virtual_datasets_bear(tmp_path):
    """Rows may alternate between the files as often as they like."""
    ids = np.arange(20_000)
    for number in range(2):
        write(tmp_path / f"{number}.h5", {"p": ids[number::2] * 3, "ids": ids[number::2]})
    with PredictionFile(index_shards(tmp_path)) as predictions:
        np.testing.assert_array_equal(predictions["p"], ids * 3)
        assert predictions["p"][[19_999, 7]].tolist() == [59_997, 21]
        predictions.verify()


def count_reads(monkeypatch):
    """Counts the bytes that are read from files, in a list."""
    sizes = []
    read = FileSource.read
    monkeypatch.setattr(
        FileSource,
        "read",
        lambda *args: (found := read(*args), sizes.append(found.nbytes))[0],
    )
    return sizes


def test_rows_far_apart_are_read_alone(tmp_path, monkeypatch):
    """Rows that nobody asked for are not read, but for those of the same chunk of the same file."""
    values = np.zeros((4000, 1000), "f4")
    for number in range(4):
        ids = np.arange(number, 4000, 4)
        write(tmp_path / f"{number}.h5", {"p": values[ids], "ids": ids})
    with PredictionFile(index_shards(tmp_path)) as predictions:
        chunk = predictions["p"].rows_at_once * values[0].nbytes
        sizes = count_reads(monkeypatch)
        for key, chunks in (([0, 3999], 2), (slice(None, None, 2000), 2), (slice(7, 0, -6), 2)):
            sizes.clear()
            assert (predictions["p"][key] == 0).all()
            assert sum(sizes) <= chunks * chunk
        sizes.clear()
        assert predictions["p"][:, 7].shape == (4000,)
        assert sum(sizes) == values[:, 7].nbytes


@pytest.mark.parametrize("parts", [1, 2])
def test_memory(parts, tmp_path):
    """Reading all rows needs the memory of the rows, and some chunks, however they are dealt."""
    values = RANDOM.random((16_000, 500), "f4")
    for number in range(parts):
        ids = np.arange(number, len(values), parts)
        write(tmp_path / f"{number}.h5", {"p": values[ids], "ids": ids})
    with PredictionFile(index_shards(tmp_path)) as predictions:
        tracemalloc.start()
        try:
            found = predictions["p"][:]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    np.testing.assert_array_equal(found, values)
    assert peak < 1.3 * values.nbytes


def test_no_memory_for_what_is_only_claimed(tmp_path):
    """No memory is asked for more rows than the files have bytes before each file claims them."""
    for number in range(2):
        path = tmp_path / f"{number}.h5"
        write(path, {"p": np.zeros((40_000, 30))}, compression="gzip")
    with PredictionFile(index_shards(tmp_path)) as predictions:
        output = predictions["p"]
        (tmp_path / "1.h5").unlink()
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"'1\.h5': it is missing"):
                output[:]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < output.nbytes / 10


def test_few_files_are_open(index, monkeypatch):
    """No more files stay open than may be."""
    monkeypatch.setattr(shards, "_MOST_OPEN", 3)
    before = len(os.listdir("/dev/fd"))
    with PredictionFile(index) as predictions:
        predictions["p"][:]
        assert len(os.listdir("/dev/fd")) == before + 1 + 3
    assert len(os.listdir("/dev/fd")) == before


def test_a_limit_on_open_files(tmp_path):
    """All shards are read and verified although the process may open fewer files."""
    for number in range(40):
        write(tmp_path / f"{number:02}.h5", {"p": np.array([number])}, expected_rows=1)
    index_shards(tmp_path)
    code = """
import resource, sys
import numpy as np
from kerasext import PredictionFile
with PredictionFile(sys.argv[1]) as predictions:
    predictions["p"][:1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
    for _ in range(2):
        assert predictions["p"][:].tolist() == list(range(40))
        predictions.verify()
"""
    command = [sys.executable, "-c", code, tmp_path / "index.h5"]
    subprocess.run(command, check=True)


def test_threads(index, monkeypatch):
    """Several threads read from one index, each what it asks for."""
    monkeypatch.setattr(shards, "_MOST_OPEN", 2)

    def read(seed):
        rows = np.random.default_rng(seed).integers(0, ROWS, 20)
        is_right = (predictions["p"][rows] == VALUES[rows]).all()
        return bool(is_right) and len(predictions["r"][rows]) == 20

    with PredictionFile(index) as predictions, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(24)))


def test_no_file_is_closed_while_it_is_read(index, monkeypatch):
    """A thread that needs another file waits until a read is over."""
    monkeypatch.setattr(shards, "_MOST_OPEN", 1)
    entered, go_on = threading.Event(), threading.Event()
    read = FileSource.read

    def held(*args):
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            go_on.wait(10)
        return read(*args)

    with PredictionFile(index) as predictions, ThreadPoolExecutor(1) as pool:
        output = predictions["p"]
        monkeypatch.setattr(FileSource, "read", held)
        other = pool.submit(lambda: output[0])
        assert entered.wait(10)
        threading.Timer(0.2, go_on.set).start()
        np.testing.assert_array_equal(output[ROWS - 1], VALUES[ROWS - 1])
        np.testing.assert_array_equal(other.result(), VALUES[0])


def test_pickled(index, monkeypatch, tmp_path):
    """An index, and outputs taken from it, are opened anew by who gets them, wherever that runs."""
    monkeypatch.chdir(index.parent)
    with PredictionFile(index.name) as predictions:
        predictions["p"][:]
        content = pickle.dumps(
            [predictions, predictions["p"], predictions["r"], predictions["ids"]]
        )
    monkeypatch.chdir(tmp_path.parent)
    file, output, rows, ids = pickle.loads(content)  # noqa: S301 - our own
    np.testing.assert_array_equal(file["p"][:], VALUES)
    np.testing.assert_array_equal(output[:], VALUES)
    assert_same(rows[:], RAGGED)
    assert ids[:].tolist() == list(range(ROWS))
    file.close()
