import importlib
import os
import shutil
import stat
import subprocess
import sys

import h5py
import numpy as np
import pytest

from kerasext.shards import index_shards, verify_index
from kerasext.storage import PredictionFile

indexing = importlib.import_module("kerasext.shards.index_shards")  # which the function hides


@pytest.mark.parametrize("kind", ["job", "number_job"])
def test_sorted_by_id(kind, tools, request):
    """An index has all rows of all shards in the order of their ids, which it has itself."""
    job = request.getfixturevalue(kind)
    before = job.state()
    path = index_shards(job.folder)
    assert path == job.folder / "index.h5"
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (300, True)
        tools.assert_rows(predictions, job.by_id)
        predictions.verify()
    assert job.state() == before
    assert sorted(os.listdir(job.folder)) == ["index.h5", *(f"part-{n}.h5" for n in range(4))]
    with h5py.File(path) as file:
        assert sorted(file) == ["_kerasext", "ids", "row"]  # the last is the scale of the axis


def test_in_shard_order(job, tools):
    """With `sort=False` shard follows shard, in the order of their names."""
    with PredictionFile(index_shards(job.folder, sort=False)) as predictions:
        tools.assert_rows(predictions, job.rows)


def test_without_ids(folder, tools):
    """Shards without ids are in their order, too."""
    rows = {"labels": np.arange(20)}
    for name, part in (("b.h5", slice(0, 5)), ("a.h5", slice(5, 20))):
        tools.write(folder / name, rows, part)
    with PredictionFile(index_shards(folder)) as predictions:
        assert predictions["labels"][:].tolist() == [*range(5, 20), *range(5)]
        predictions.verify()


def test_what_it_says_of_itself(job):
    """Names of classes, and the attributes that all shards share, are those of the shards."""
    with PredictionFile(index_shards(job.folder)) as predictions:
        assert predictions.class_names == ["cat", "größe", "dog"]
        origin, health = predictions.origin, predictions.health
        with PredictionFile(job.shards[-1]) as last:
            assert origin["ended"] == last.origin["ended"]
    assert (origin["model_name"], origin["model_fingerprint"]) == ("net", "abc")
    assert "rank" not in origin
    assert health["rows"] == 300


def test_no_rows_at_all(folder, tools):
    """Shards without a row make an index without one."""
    rows = {"labels": np.zeros(0, "i4"), "ids": np.zeros(0, "i8"), "p": np.zeros((0, 3), "f4")}
    for name in ("a.h5", "b.h5"):
        tools.write(folder / name, rows)
    path = index_shards(folder)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (0, True)
        assert predictions["p"][:].shape == (0, 3)
        predictions.verify()
    (folder / "b.h5").unlink()
    with pytest.raises(ValueError, match=r"'b\.h5': it is missing"):
        verify_index(path)


def test_in_another_place(job, tools, tmp_path, monkeypatch):
    """Folder and index can be moved together, and read from any working directory."""
    index_shards(job.folder)
    moved = tmp_path / "elsewhere"
    shutil.move(job.folder, moved)
    decoys = tmp_path / "decoys"
    decoys.mkdir()
    for shard in job.shards:  # of the same names, where one might look first
        rows = {name: values[:30] * 0 for name, values in job.rows.items() if name == "labels"}
        tools.write(decoys / shard.name, rows)
    monkeypatch.chdir(decoys)
    for path in (moved / "index.h5", os.path.relpath(moved / "index.h5")):
        with PredictionFile(path) as predictions:
            tools.assert_rows(predictions, job.by_id)


@pytest.mark.parametrize("argument", ["index", "virtual"])
@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b.h5", "/b.h5", "../b.h5"])
def test_index_must_be_a_name(argument, name, job):
    """What is made stands in the folder of the shards."""
    with pytest.raises(ValueError, match=f"`{argument}` must be the name of a file in the folder"):
        index_shards(job.folder, **{argument: name})


@pytest.mark.parametrize("argument", ["index", "virtual"])
def test_index_must_not_be_a_shard(argument, job):
    """A file with rows is never replaced."""
    before = job.state()
    with pytest.raises(ValueError, match="must not be the name of a file with rows of its own"):
        index_shards(job.folder, **{argument: "part-0.h5"})
    assert job.state() == before


def test_made_again(job, tools):
    """An index is replaced by the next one, and counts as no shard."""
    index_shards(job.folder, index="old.h5")
    index_shards(job.folder)
    with PredictionFile(index_shards(job.folder, sort=False)) as predictions:
        tools.assert_rows(predictions, job.rows)


@pytest.mark.parametrize("function", ["write_index", "write_virtual_file"])
def test_old_files_stay_when_the_new_ones_fail(function, job, monkeypatch):
    """Files are written under hidden names first. After an error, no hidden file is left."""
    path = index_shards(job.folder, virtual="all.h5")
    before = {file: file.read_bytes() for file in job.folder.iterdir()}
    write = getattr(indexing, function)

    def fail(*arguments, **options):
        write(*arguments, **options)
        raise OSError("disk full")

    monkeypatch.setattr(indexing, function, fail)
    with pytest.raises(OSError, match="disk full"):
        index_shards(job.folder, sort=False, virtual="all.h5")
    assert {file: file.read_bytes() for file in job.folder.iterdir()} == before
    assert path in before


@pytest.mark.parametrize("damage", ["missing", "truncated", "rewritten", "garbage", "link", "fifo"])
def test_stale_index(damage, job, tools, tmp_path):
    """A shard that is not what it was is named, by the reader and by `verify_index`."""
    path = index_shards(job.folder)
    verify_index(path)
    shard = job.shards[2]
    content = shard.read_bytes()
    shard.unlink()
    if damage == "truncated":
        shard.write_bytes(content[:-5000])
    elif damage == "garbage":
        shard.write_bytes(bytes(len(content)))
    elif damage == "rewritten":  # with rows of the same shapes, by the same model
        other = {name: values[::-1] for name, values in job.rows.items()}
        tools.write(shard, other, slice(*job.ends[2:4]))
    elif damage == "link":
        (tmp_path / "far.h5").write_bytes(content)
        shard.symlink_to(tmp_path / "far.h5")
    elif damage == "fifo":
        os.mkfifo(shard)
    reason = {"missing": "missing", "rewritten": "changed", "link": "a link", "fifo": "a device"}
    for read in (verify_index, PredictionFile):
        with pytest.raises(ValueError, match=rf"'part-2\.h5': .*{reason.get(damage, '')}"):
            read(path)


def test_all_that_are_missing_are_named(job):
    """The error has every shard that is wrong."""
    path = index_shards(job.folder)
    job.shards[0].unlink()
    job.shards[3].write_bytes(b"")
    with pytest.raises(ValueError, match=r"'part-0\.h5': it is missing; 'part-3\.h5': "):
        verify_index(path)


def test_verify_of_other_files(job):
    """`verify_index` is for indexes."""
    with pytest.raises(ValueError, match="must be what `index_shards` makes"):
        verify_index(job.shards[0])
    with pytest.raises(FileNotFoundError):
        verify_index(job.folder / "none.h5")


def test_more_shards_than_may_be_open(folder, tools):
    """An index of more shards than the process may open is read by `PredictionFile`.

    HDF5 gives fill values for it, and `verify_index` an error.
    """
    for number in range(40):
        tools.write(folder / f"{number:02}.h5", {"labels": np.array([number])})
    index_shards(folder)
    code = f"""
import resource
from kerasext.shards import verify_index
from kerasext import PredictionFile
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
with PredictionFile({str(folder / "index.h5")!r}) as predictions:
    predictions.verify()
    print(predictions["labels"][:].tolist() == list(range(40)))
try:
    verify_index({str(folder / "index.h5")!r})
except ValueError as error:
    print("ulimit -n" in str(error), "of 40 shards" in str(error))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True\nTrue True\n"


def test_shards_may_be_read_only(job, tools):
    """Nothing is asked of the shards but to be readable."""
    for shard in job.shards:
        shard.chmod(stat.S_IRUSR)
    with PredictionFile(index_shards(job.folder)) as predictions:
        tools.assert_rows(predictions, job.by_id)
