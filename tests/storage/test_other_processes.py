"""A file is read where it was not opened: in other processes, and where nothing was imported."""

import copy
import multiprocessing
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest

from kerasext.shards import index_shards
from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows
from kerasext.storage.format.layout import OUTPUTS
from kerasext.storage.format.sealed_table import write_texts

ROWS = 50
LABELS = np.arange(ROWS) * 3
WORDS = RaggedRows(np.array(["ä", "b"] * ROWS), np.full((ROWS, 1), 2))


@pytest.fixture(params=["file", "index"])
def file(request, path):
    """A complete file, or an index of one."""
    path.parent.joinpath("job").mkdir()
    path = path.parent / "job" / path.name
    writer = PredictionFileWriter(path, ragged=request.param == "file", class_names=["a", "b"])
    columns = {"labels": LABELS, "ids": np.array([f"{row:03}.png" for row in range(ROWS)])}
    writer.append({**columns, "words": WORDS} if request.param == "file" else columns)
    writer.finish()
    return path if request.param == "file" else index_shards(path.parent)


def content(predictions):
    """All rows."""
    return {name: [np.asarray(row).tolist() for row in out[:]] for name, out in predictions.items()}


def pickled(value):
    """What another process gets."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - its own bytes


@pytest.mark.parametrize("copied", [copy.copy, pickled], ids=["copied", "pickled"])
def test_a_pickled_file(file, copied, monkeypatch):
    """A file that was pickled opens by itself, wherever the process works."""
    monkeypatch.chdir(file.parent)
    with PredictionFile(file.name) as predictions:
        other = copied(predictions)
        monkeypatch.chdir("/")
        with other:
            assert content(other) == content(predictions)
            assert other.class_names == predictions.class_names
            other.refresh()
            other.verify()
        assert len(predictions["labels"][:]) == ROWS


def test_pickled_outputs(file):
    """So does an output by itself, with the rows that it had."""
    with PredictionFile(file) as predictions:
        for name, output in predictions.items():
            other = pickled(output)
            assert content({name: other}) == content({name: output})
            assert (other.shape, other.dtype) == (output.shape, output.dtype)
    with pytest.raises(ValueError, match="was closed"):
        pickle.dumps(predictions)


def read_rows(predictions, rows):
    """What a worker does."""
    return predictions["labels"][rows].tolist()


def test_workers_that_are_spawned(file):
    """Workers of a pool are given the open file, and read for themselves."""
    with (
        PredictionFile(file) as predictions,
        multiprocessing.get_context("forkserver").Pool(1) as pool,
    ):
        assert pool.apply(read_rows, (predictions, slice(5, 8))) == [15, 18, 21]


@pytest.mark.parametrize("compression", ["zstd", "bitshuffle", "blosc2"])
def test_filters_are_found(path, compression):
    """A compressed file is read by a process that has not imported hdf5plugin."""
    pytest.importorskip("hdf5plugin")
    writer = PredictionFileWriter(path, compression=compression)
    writer.append({"labels": LABELS})
    writer.finish()
    code = (
        "import sys; from kerasext import PredictionFile; assert 'hdf5plugin' not in sys.modules;"
        "print(PredictionFile(sys.argv[1])['labels'][:].sum())"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) == LABELS.sum()


def test_a_missing_filter(path):
    """Without hdf5plugin the error says what to install, and not that the file is damaged."""
    pytest.importorskip("hdf5plugin")
    writer = PredictionFileWriter(path, compression="zstd")
    writer.append({"labels": LABELS})
    writer.finish()
    code = (
        "import sys; sys.modules['hdf5plugin'] = None; from kerasext import PredictionFile\n"
        "try: PredictionFile(sys.argv[1])['labels'][:]\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "'/labels'" in run.stdout
    assert "pip install hdf5plugin" in run.stdout
    assert "damaged" not in run.stdout


def test_files_compare_by_identity(file):
    """A file equals itself only, and no row is read to find out; it can be a key."""
    with PredictionFile(file) as one, PredictionFile(file) as other:
        assert one == one  # noqa: PLR0124
        assert one != other
        assert {one: 1, other: 2}[one] == 1
    assert one == one  # noqa: PLR0124


@pytest.mark.parametrize("export", ["to_pandas", "to_arrow"])
def test_a_file_without_outputs(path, export):
    """What has nothing to export says so."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": LABELS})
    writer.finish()
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        del file[OUTPUTS]
        write_texts(file, OUTPUTS, [])
    with PredictionFile(path) as predictions, pytest.raises(ValueError, match="must have outputs"):
        getattr(predictions, export)()
