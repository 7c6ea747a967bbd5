import os
import resource
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from ray.data import SaveMode
from ray.data.block import BlockAccessor

import kerasext.ray.hdf5_datasink
from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.ray import HDF5Datasink, KerasPredictor
from kerasext.ray.model_column import MODEL, model_column
from kerasext.shards import index_shards
from kerasext.storage import PredictionFileWriter


def block(**columns):
    """A block of Ray from arrays."""
    return BlockAccessor.batch_to_arrow_block(columns)


def write(sink, *blocks):
    """What Ray does with a sink: the start, a task for each block, the end."""
    sink.on_write_start()
    for number, table in enumerate(blocks):
        context = SimpleNamespace(kwargs={"write_uuid": "job"}, task_idx=number)
        sink.write([table], context)
    rows = sum(BlockAccessor.for_block(table).num_rows() for table in blocks)
    sink.on_write_complete(SimpleNamespace(num_rows=rows))


@pytest.fixture
def folder(tmp_path):
    """Where files may be written; it does not exist."""
    return tmp_path / "predictions"


def described(dataset):
    """What makes a dataset what it is, but its values and what refers to others."""
    references = ("DIMENSION_LIST", "REFERENCE_LIST")
    attributes = {name: a for name, a in dataset.attrs.items() if name not in references}
    return {
        "dtype": dataset.dtype,
        "shape": dataset.shape,
        "chunks": dataset.chunks,
        "compression": dataset.compression,
        **{name: np.asarray(value).tolist() for name, value in attributes.items()},
    }


def test_a_file_is_as_the_callback_writes_it(folder, model_path, classifier, rows, path):
    """A file has the datasets, attributes and values of one that `predict` has written."""
    ids, labels = np.arange(70), np.arange(70) % 3
    writer = HDF5PredictionWriter(path, ids=ids, targets=labels, metadata={"a": 1})
    classifier.predict(rows, batch_size=70, callbacks=[writer], verbose=0)
    predictor = KerasPredictor(model_path, keep_columns=["id", "label"])
    table = predictor({"x": rows, "id": ids, "label": labels})
    write(HDF5Datasink(str(folder), targets="label", metadata={"a": 1}), table)
    with h5py.File(path) as one, h5py.File(folder / "job_000000.h5") as other:
        names = []
        one.visit(names.append)
        found = []
        other.visit(found.append)
        assert sorted(found) == sorted(names)
        for name in names:
            if not isinstance(one[name], h5py.Dataset) or name == "_kerasext/record":
                continue
            assert described(one[name]) == described(other[name])
            np.testing.assert_array_equal(one[name][()], other[name][()])
        assert set(one.attrs) == set(other.attrs)
        for name in set(one.attrs) - {"created", "started"}:
            assert one.attrs[name] == other.attrs[name]
        assert one["_kerasext/record"]["complete"] == other["_kerasext/record"]["complete"] == 1
    with PredictionFile(folder / "job_000000.h5") as file:
        assert file.origin["started"] <= file.origin["created"]


def test_the_index_is_sorted_by_id(folder, model_path, classifier, rows):
    """Blocks in any order read as one file in the order of the ids, with names and metadata."""
    predictor = KerasPredictor(model_path)
    order = np.random.default_rng(0).permutation(70)
    tables = [predictor({"x": rows[part], "id": part}) for part in np.array_split(order, 4)]
    write(HDF5Datasink(str(folder), metadata={"job": 7}), *tables)
    expected = classifier.predict(rows, verbose=0)
    with PredictionFile(folder / "index.h5") as file:
        file.verify()
        np.testing.assert_array_equal(file["ids"][:], np.arange(70))
        np.testing.assert_allclose(file["probabilities"][:], expected["probabilities"], rtol=1e-5)
        np.testing.assert_array_equal(file["labels"][:], expected["labels"])
        assert tuple(file.class_names) == classifier.class_names
        assert file.metadata == {"job": 7}
        assert file.origin["model_name"] == classifier.name
    assert sorted(os.listdir(folder)) == ["index.h5", *(f"job_00000{n}.h5" for n in range(4))]


def test_any_dataset(folder):
    """Columns of any Ray dataset are outputs, nested by their names, under the dtypes asked for."""
    table = block(
        **{
            "id": np.array([3, 1], "u2"),
            "head/p": np.array([[0.25, 0.75], [1, 0]]),
            "is_odd": np.array([True, True]),
            "when": np.array([1, 2], "i8"),
        }
    )
    write(HDF5Datasink(str(folder), dtypes={"head/p": "float16"}), table)
    with h5py.File(folder / "job_000000.h5") as file:
        assert {name: file[name].dtype.str for name in ("ids", "head/p", "is_odd", "when")} == {
            "ids": "<u2",
            "head/p": "<f2",
            "is_odd": "|b1",
            "when": "<i8",
        }
        np.testing.assert_array_equal(file["head/p"][:], [[0.25, 0.75], [1, 0]])


def test_strings(folder, monkeypatch):
    """Strings are as wide as the longest of a file, also one of a later piece, and of any Arrow."""
    monkeypatch.setattr(kerasext.ray.hdf5_datasink, "_STEP_BYTES", 100)
    ids = [f"é{n}" for n in range(100)]
    ids[70] = "x" * 300
    table = block(id=np.array(ids), y=np.arange(100.0))
    large = pa.table({"id": pa.array(["b", ""], pa.large_string()), "y": [1.0, 2.0]})
    binary = pa.table({"id": pa.array([b"c"], pa.binary()), "y": [3.0]})
    write(HDF5Datasink(str(folder)), table, large, binary)
    with h5py.File(folder / "job_000000.h5") as file:
        assert file["ids"].dtype.itemsize == 300
        assert file["ids"].asstr()[:].tolist() == ids
    with PredictionFile(folder / "index.h5") as file:
        assert file["ids"][:].tolist() == sorted([*ids, "b", "", "c"])


def test_text_of_lists_and_dictionaries(folder):
    """Categories of pandas and lists of strings are stored at their width, to the last NUL."""
    category = pd.DataFrame({"id": [1, 2], "y": pd.Categorical(["a", "x" * 80])})
    write(HDF5Datasink(str(folder)), category)
    with h5py.File(folder / "job_000000.h5") as file:
        assert file["y"].asstr()[:].tolist() == ["a", "x" * 80]
    shutil.rmtree(folder)
    lists = pa.table({"id": [1, 2], "y": [["a", "x" * 80], ["é", ""]]})
    write(HDF5Datasink(str(folder)), lists)
    with h5py.File(folder / "job_000000.h5") as file:
        assert file["y"].asstr()[:].tolist() == [["a", "x" * 80], ["é", ""]]
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="must not end in NUL"):
        write(HDF5Datasink(str(folder)), pa.table({"id": [1], "y": [["a\0", "b"]]}))


def test_one_long_string(folder, monkeypatch):
    """Rows go to NumPy, where all strings are as wide as the longest, a few at a time."""
    monkeypatch.setattr(kerasext.ray.hdf5_datasink, "_STEP_BYTES", 10_000)
    lengths = []
    append = PredictionFileWriter.append

    def counting(writer, step):
        lengths.append(len(step["ids"]))
        append(writer, step)

    monkeypatch.setattr(PredictionFileWriter, "append", counting)
    text = ["a"] * 100
    text[99] = "b" * 1000
    write(HDF5Datasink(str(folder)), pa.table({"id": list(range(100)), "y": text}))
    assert sum(lengths) == 100
    assert max(lengths) <= 10


def test_more_files_than_may_be_open(folder):
    """A driver that may not open all files makes an index of them, for others that may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    tables = [block(id=np.array([n]), y=np.array([n])) for n in range(40)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 30, hard))
    try:
        write(HDF5Datasink(str(folder)), *tables)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with PredictionFile(folder / "index.h5") as file:
        np.testing.assert_array_equal(file["y"][:], np.arange(40))


def test_a_pandas_block(folder):
    """A function that returned a data frame before makes no difference."""
    write(HDF5Datasink(str(folder)), pd.DataFrame({"id": ["b", "a"], "y": [2.0, 1.0]}))
    with PredictionFile(folder / "index.h5") as file:
        np.testing.assert_array_equal(file["y"][:], [1, 2])


def test_without_ids(folder):
    """`ids=None` is for datasets without: file after file."""
    write(HDF5Datasink(str(folder), ids=None), block(y=np.array([3, 2])), block(y=np.array([1])))
    with PredictionFile(folder / "index.h5") as file:
        np.testing.assert_array_equal(file["y"][:], [3, 2, 1])


@pytest.mark.parametrize(
    ("table", "options", "error", "message"),
    [
        (block(y=np.ones(2)), {}, ValueError, r"`ids` must be a column.*\['y'\]"),
        (block(id=np.arange(2)), {"targets": "t"}, ValueError, "`targets` must be a column.*'t'"),
        (pa.table({"id": [1, 2], "y": [None, 1.0]}), {}, ValueError, "some rows of 'y'"),
        (pa.table({"id": [1, None], "y": [1, 2]}), {}, ValueError, "some rows of 'ids'"),
        (block(id=np.ones(2), y=np.ones(2)), {}, TypeError, "integers or strings"),
        (block(id=np.arange(2), row=np.ones(2)), {"ids": "row"}, TypeError, "`ids` must be int"),
        (
            block(id=np.arange(2), y=np.array([np.ones(2), np.ones(3)], dtype=object)),
            {},
            ValueError,
            "'y' must have one shape",
        ),
        (pa.table({"id": [1], "y": [{"a": 1}]}), {}, TypeError, "'y'"),
        (block(id=np.arange(2), **{"_kerasext/x": np.ones(2)}), {}, ValueError, "reserved"),
        (
            block(id=np.arange(2), ids=np.arange(2)),
            {},
            ValueError,
            r"two columns of one name.*\['ids'\]",
        ),
    ],
    ids=[
        "ids",
        "targets",
        "null",
        "null id",
        "float",
        "row",
        "ragged",
        "struct",
        "reserved",
        "twice",
    ],
)
def test_what_can_not_be_written(folder, table, options, error, message):
    """What no file can have is refused by the name of its column, and no index appears."""
    with pytest.raises(error, match=message):
        write(HDF5Datasink(str(folder), **options), table)
    assert not list(folder.iterdir())


def test_rows_of_two_models(folder):
    """A model that changed in the middle of a job is found out, in a file and across files."""
    one, other = (
        block(id=np.arange(2) + 2 * n, y=np.ones(2)).append_column(
            MODEL,
            model_column(
                f'{{"class_names": null, "attributes": {{"model_fingerprint": "{n}"}}}}', 2
            ),
        )
        for n in range(2)
    )
    with pytest.raises(ValueError, match="one model"):
        write(HDF5Datasink(str(folder)), pa.concat_tables([one, other]))
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"is of the model '1'"):
        write(HDF5Datasink(str(folder)), one, other)
    assert not (folder / "index.h5").exists()


def test_a_second_run_into_the_folder(folder):
    """The same rows again, which Ray adds, are refused, and the index of the first run is gone."""
    table = block(id=np.arange(3), y=np.ones(3))
    write(HDF5Datasink(str(folder)), table)
    other = SimpleNamespace(kwargs={"write_uuid": "again"}, task_idx=0)
    sink = HDF5Datasink(str(folder))
    sink.on_write_start()
    assert not (folder / "index.h5").exists()
    sink.write([table], other)
    with pytest.raises(ValueError, match="An id must stand in one row"):
        sink.on_write_complete(SimpleNamespace(num_rows=3))
    assert os.listdir(folder).count("index.h5") == 0


@pytest.mark.parametrize("name", ["index.h5", "_SUCCESS", "notes.txt", "checkpoints"])
def test_a_folder_with_other_things(folder, name):
    """What would keep the index from being made at the end is refused at the start, and stays."""
    folder.mkdir()
    (folder / name).mkdir() if name == "checkpoints" else (folder / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"nothing in it but prediction files.*{name}"):
        HDF5Datasink(str(folder)).on_write_start()
    assert os.listdir(folder) == [name]


def test_a_second_run_without_ids(folder):
    """Without ids nobody could tell rows that are there twice: the folder must be empty."""
    write(HDF5Datasink(str(folder), ids=None), block(y=np.array([1, 2])))
    with pytest.raises(ValueError, match=r"without `ids`.*job_000000\.h5"):
        HDF5Datasink(str(folder), ids=None).on_write_start()
    assert sorted(os.listdir(folder)) == ["index.h5", "job_000000.h5"]


def test_a_job_that_is_ignored(folder):
    """A job that Ray skips, for the folder is there, leaves everything as it is."""
    table = block(id=np.arange(3), y=np.ones(3))
    write(HDF5Datasink(str(folder)), table)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    HDF5Datasink(str(folder), mode=SaveMode.IGNORE).on_write_start()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_two_attempts_at_once(folder):
    """An attempt that lives, on a node that was given up, keeps its file; the other one fails."""
    sink = HDF5Datasink(str(folder))
    sink.on_write_start()
    other = PredictionFileWriter(folder / ".job_000000.h5")
    other.append({"ids": np.arange(3)})
    context = SimpleNamespace(kwargs={"write_uuid": "job"}, task_idx=0)
    with pytest.raises(BlockingIOError, match="one writer at a time"):
        sink.write([block(id=np.arange(3), y=np.ones(3))], context)
    other.finish()
    assert os.listdir(folder) == [".job_000000.h5"]


def test_a_task_that_runs_again(folder):
    """A task writes its file again, over what an attempt before it left."""
    folder.mkdir()
    for name in ("job_000000.h5", ".job_000000.h5"):
        (folder / name).write_bytes(b"half of a file" * 10_000)
    write(HDF5Datasink(str(folder)), block(id=np.arange(3), y=np.ones(3)))
    assert sorted(os.listdir(folder)) == ["index.h5", "job_000000.h5"]
    with PredictionFile(folder / "job_000000.h5") as file:
        file.verify()


def test_no_rows(folder):
    """A job of no rows is an error: a prediction file can't be without outputs."""
    with pytest.raises(ValueError, match="at least one row"):
        write(HDF5Datasink(str(folder)), block(id=np.arange(0), y=np.ones(0)))


def test_an_empty_block(folder):
    """A task without rows writes no file."""
    tables = [block(id=np.arange(n), y=np.ones(n)) for n in (0, 2)]
    write(HDF5Datasink(str(folder)), *tables)
    assert sorted(os.listdir(folder)) == ["index.h5", "job_000001.h5"]


def test_files_on_other_nodes(folder):
    """Where the folder is not the same one on all nodes, rows are missing: no index."""
    sink = HDF5Datasink(str(folder))
    sink.on_write_start()
    context = SimpleNamespace(kwargs={"write_uuid": "job"}, task_idx=0)
    sink.write([block(id=np.arange(3), y=np.ones(3))], context)
    with pytest.raises(ValueError, match=r"all nodes share.*3 rows of 5"):
        sink.on_write_complete(SimpleNamespace(num_rows=5))
    assert os.listdir(folder) == ["job_000000.h5"]


def test_other_filesystems(folder, tmp_path):
    """On another filesystem than the local one files are whole, and an index is for the user."""
    folder.mkdir()
    filesystem = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    sink = HDF5Datasink("predictions", filesystem=filesystem)
    write(sink, block(id=np.array([2, 1]), y=np.array([2.0, 1.0])))
    assert os.listdir(folder) == ["job_000000.h5"]
    with PredictionFile(index_shards(folder)) as file:
        np.testing.assert_array_equal(file["y"][:], [1, 2])


def test_a_refused_block_on_another_filesystem(folder, tmp_path):
    """There, too, a file that can't be written does not appear."""
    folder.mkdir()
    sink = HDF5Datasink(
        "predictions", filesystem=SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    )
    with pytest.raises(TypeError, match="'y' must be of numbers"):
        write(sink, pa.table({"id": [1], "y": pa.array([1], pa.timestamp("s"))}))
    assert not os.listdir(folder)


def test_overwrite(folder):
    """Under Ray's `overwrite` the rows of the job before are gone."""
    write(HDF5Datasink(str(folder)), *(block(id=np.array([n]), y=np.ones(1)) for n in range(3)))
    sink = HDF5Datasink(str(folder), mode=SaveMode.OVERWRITE)
    write(sink, block(id=np.array([7]), y=np.ones(1)))
    with PredictionFile(folder / "index.h5") as file:
        assert file["ids"][:].tolist() == [7]


def test_a_relative_path(tmp_path, monkeypatch):
    """A path that is not absolute means the same folder in tasks, wherever they run."""
    monkeypatch.chdir(tmp_path)
    sink = HDF5Datasink("predictions")
    monkeypatch.chdir("/")
    write(sink, block(id=np.array([7]), y=np.ones(1)))
    assert sorted(os.listdir(tmp_path / "predictions")) == ["index.h5", "job_000000.h5"]


def test_no_index(folder):
    """`index=None` leaves it to the user, and removes none."""
    write(HDF5Datasink(str(folder)), block(id=np.arange(2), y=np.ones(2)))
    sink = HDF5Datasink(str(folder), index=None)
    sink.on_write_start()
    sink.on_write_complete(SimpleNamespace(num_rows=0))
    assert "index.h5" in os.listdir(folder)


def test_bad_arguments(folder):
    """What is wrong with the arguments shows before a job begins."""
    with pytest.raises(ValueError, match="compression"):
        HDF5Datasink(str(folder), compression="gzop")
    with pytest.raises(TypeError, match="metadata"):
        HDF5Datasink(str(folder), metadata={"a": object()})
    with pytest.raises(ValueError, match="two columns"):
        HDF5Datasink(str(folder), targets="id")
    with pytest.raises(ValueError, match="'id' is 'ids'"):
        HDF5Datasink(str(folder), dtypes={"id": "S9"})
    with pytest.raises(ValueError, match="index='a/b'"):
        HDF5Datasink(str(folder), index="a/b")
