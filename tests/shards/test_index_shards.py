import os
import shutil
import stat
import subprocess
import sys

import h5py
import numpy as np
import pytest

from kerasext.shards import index_shards, shard_index, verify_index
from kerasext.storage import PredictionFile


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
        assert [file[name].is_virtual for name in ("ids", "labels")] == [False, True]


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


def test_plain_h5py(job):
    """Any HDF5 library reads the rows, with NaN and text of the widest shard."""
    with h5py.File(index_shards(job.folder)) as file:
        for name in ("probabilities", "labels", "box", "is_odd", "phase", "ids", "row"):
            np.testing.assert_array_equal(file[name][:], job.by_id[name], err_msg=name)
        assert file["head/probabilities"].attrs["_FillValue"] == 255
        assert len(file["head/probabilities"].attrs["class_names"]) == 2


def test_xarray(job):
    """Xarray has the names of the axes, the ids as a coordinate, and decodes fixed point."""
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(index_shards(job.folder), engine="h5netcdf") as data:
        assert data["probabilities"].dims == ("row", "class")
        assert data["row"].values.tolist() == job.by_id["row"].tolist()
        assert data["ids"].values.tolist() == job.by_id["ids"].tolist()
        np.testing.assert_array_equal(data["probabilities"].values, job.by_id["probabilities"])


def test_text_of_different_widths(folder, tools):
    """Outputs of text are as wide as the widest shard has them, in any reader."""
    names = np.array(["a", "bcdefghij", "ü"])
    for number in range(3):
        rows = {"names": names[number : number + 1]}
        dtypes = {"names": f"S{4 + 3 * number if number != 1 else 9}"}
        tools.write(folder / f"{number}.h5", rows, dtypes=dtypes)
    path = index_shards(folder)
    with PredictionFile(path) as predictions:
        assert predictions["names"][:].tolist() == names.tolist()
        assert predictions["names"][2] == "ü"
    with h5py.File(path) as file:
        assert file["names"].asstr()[:].tolist() == names.tolist()


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


def test_names_with_percent_signs(folder, tools):
    """A percent sign in the name of a shard or an output, which HDF5 reads as a pattern, is one."""
    for number in range(2):
        tools.write(folder / f"50%b-%%{number}.h5", {"a%b": np.arange(3) + 3 * number})
    path = index_shards(folder)
    with h5py.File(path) as file:
        assert file["a%b"][:].tolist() == list(range(6))


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
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["labels"][:], job.by_id["labels"])


@pytest.mark.parametrize("index", ["", ".", "..", ".hidden", "a/b.h5", "/b.h5", "../b.h5"])
def test_index_must_be_a_name(index, job):
    """The index stands in the folder of its shards."""
    with pytest.raises(ValueError, match="`index` must be the name of a file in the folder"):
        index_shards(job.folder, index=index)


def test_index_must_not_be_a_shard(job):
    """A file with rows is never replaced by an index."""
    before = job.state()
    with pytest.raises(ValueError, match="must not be the name of a file with rows of its own"):
        index_shards(job.folder, index="part-0.h5")
    assert job.state() == before


def test_made_again(job, tools):
    """An index is replaced by the next one, and counts as no shard."""
    index_shards(job.folder, index="old.h5")
    index_shards(job.folder)
    with PredictionFile(index_shards(job.folder, sort=False)) as predictions:
        tools.assert_rows(predictions, job.rows)


def test_an_old_index_stays_when_the_new_one_fails(job, monkeypatch):
    """The index is written under another name first, of which nothing is left after an error."""
    path = index_shards(job.folder)
    before, names = path.read_bytes(), sorted(os.listdir(job.folder))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(shard_index, "_fill", fail)
    with pytest.raises(OSError, match="disk full"):
        index_shards(job.folder)
    assert path.read_bytes() == before
    assert sorted(os.listdir(job.folder)) == names


def test_ragged_outputs(folder, tools, ragged):
    """Outputs whose rows differ in shape can't be indexed, and the error says what can be done."""
    tools.write(folder / "a.h5", {"boxes": ragged(5)}, ragged=True)
    with pytest.raises(ValueError, match=r"merge_shards.*\['boxes'\]"):
        index_shards(folder)


def test_too_many_runs(job, monkeypatch):
    """Rows that alternate between shards too often are refused, with what to do instead."""
    monkeypatch.setattr(shard_index, "MOST_RUNS", 20)
    with pytest.raises(ValueError, match=r"at most 20 .*`sort=False`, or use `merge_shards`"):
        index_shards(job.folder)
    index_shards(job.folder, sort=False)
    monkeypatch.setattr(shard_index, "MOST_RUNS", 3)
    with pytest.raises(ValueError, match=r"at most 3 files .*of them; use `merge_shards`"):
        index_shards(job.folder, sort=False)


def test_sorted_if_possible(job, tools, monkeypatch):
    """With `sort="auto"` rows that alternate too often are file after file, with a warning."""
    with PredictionFile(index_shards(job.folder, sort="auto")) as predictions:
        tools.assert_rows(predictions, job.by_id)
    monkeypatch.setattr(shard_index, "MOST_RUNS", 20)
    with pytest.warns(UserWarning, match=r"alternate \d+ times .* have 20 runs.*merge_shards"):
        path = index_shards(job.folder, sort="auto")
    with PredictionFile(path) as predictions:
        tools.assert_rows(predictions, job.rows)


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
