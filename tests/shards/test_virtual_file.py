"""The file of virtual datasets that `index_shards` makes for other tools."""

import importlib
import os
import shutil

import h5py
import numpy as np
import pytest

from kerasext.shards import ShardFolder, index_shards, verify_index
from kerasext.storage import PredictionFile, is_index, is_virtual_file

indexing = importlib.import_module("kerasext.shards.index_shards")  # which the function hides


def virtual_file(folder, **options):
    """Makes the file; returns its path."""
    index = index_shards(folder, virtual="all.h5", **options)
    return index.with_name("all.h5")


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("kind", ["job", "number_job"])
def test_plain_h5py(kind, sort, request):
    """Any HDF5 library reads the rows of the index, with NaN and text of the widest shard."""
    job = request.getfixturevalue(kind)
    path = virtual_file(job.folder, sort=sort)
    rows = job.by_id if sort else job.rows
    with h5py.File(path) as file, PredictionFile(job.folder / "index.h5") as predictions:
        for name, values in rows.items():
            if name != "head/probabilities":
                np.testing.assert_array_equal(file[name][:], values, err_msg=name)
        assert file["labels"].is_virtual
        fixed = file["head/probabilities"]
        assert (fixed.dtype, fixed.attrs["_FillValue"]) == ("u1", 255)
        floats = np.where(fixed[:] == 255, np.nan, fixed[:] * fixed.attrs["scale_factor"])
        np.testing.assert_array_equal(floats.astype("f4"), predictions["head/probabilities"])
        assert [name.decode() for name in fixed.attrs["class_names"]] == ["cat", "größe"]
        assert file.attrs["model_fingerprint"] == b"abc"


def test_xarray(job):
    """Xarray has the names of the axes, the ids as a coordinate, and decodes fixed point."""
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(virtual_file(job.folder), engine="h5netcdf") as data:
        assert data["probabilities"].dims == ("row", "class")
        assert data["class"].values.tolist() == ["cat", "größe", "dog"]
        assert data["row"].values.tolist() == job.by_id["row"].tolist()
        assert data["ids"].values.tolist() == job.by_id["ids"].tolist()
        np.testing.assert_array_equal(data["probabilities"].values, job.by_id["probabilities"])


def test_text_of_different_widths(folder, tools):
    """Text is as wide as the widest shard has it."""
    names = np.array(["a", "bcdefghij", "ü"])
    for number, width in enumerate([4, 9, 5]):
        rows = {"names": names[number : number + 1]}
        tools.write(folder / f"{number}.h5", rows, dtypes={"names": f"S{width}"})
    with h5py.File(virtual_file(folder)) as file:
        assert file["names"].asstr()[:].tolist() == names.tolist()


def test_names_with_percent_signs(folder, tools):
    """A percent sign in the name of a shard or an output, which HDF5 reads as a pattern, is one."""
    for number in range(2):
        tools.write(folder / f"50%b-%%{number}.h5", {"a%b": np.arange(3) + 3 * number})
    with h5py.File(virtual_file(folder)) as file:
        assert file["a%b"][:].tolist() == list(range(6))


def test_no_rows(folder, tools):
    """Shards without a row make a file without one, and rows without a byte are no hindrance."""
    rows = {"labels": np.zeros(0, "i4"), "p": np.zeros((0, 3), "f4"), "none": np.zeros((0, 0))}
    tools.write(folder / "a.h5", rows)
    with h5py.File(virtual_file(folder)) as file:
        assert (file["p"].shape, file["none"].shape) == ((0, 3), (0, 0))
    tools.write(
        folder / "b.h5", {name: np.ones((2, *v.shape[1:]), v.dtype) for name, v in rows.items()}
    )
    with h5py.File(virtual_file(folder)) as file:
        assert file["p"][:].tolist() == [[1] * 3] * 2
        assert file["none"].shape == (2, 0)


def test_in_another_place(job, tools, tmp_path, monkeypatch):
    """The folder can be moved, and read from any working directory."""
    virtual_file(job.folder)
    moved = tmp_path / "elsewhere"
    shutil.move(job.folder, moved)
    decoys = tmp_path / "decoys"
    decoys.mkdir()
    for shard in job.shards:  # of the same names, where one might look first
        tools.write(decoys / shard.name, {"labels": job.rows["labels"][:30] * 0})
    monkeypatch.chdir(decoys)
    for path in (moved / "all.h5", os.path.relpath(moved / "all.h5")):
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["labels"][:], job.by_id["labels"])


def test_it_is_not_for_kerasext(job):
    """`PredictionFile` refuses it and names the index; a folder has it beside its shards."""
    path = virtual_file(job.folder, index="by_id.h5")
    for use in (PredictionFile, verify_index):
        with pytest.raises(ValueError, match=r"open the index 'by_id\.h5' beside it.*all\.h5"):
            use(path)
    assert is_index(path)
    assert is_virtual_file(path)
    assert not is_virtual_file(job.folder / "by_id.h5")
    assert not is_virtual_file(job.shards[0])
    assert ShardFolder.read(job.folder).names == [shard.name for shard in job.shards]


def test_made_again(job):
    """Both files are replaced by the next ones."""
    virtual_file(job.folder)
    with h5py.File(virtual_file(job.folder, sort=False)) as file:
        np.testing.assert_array_equal(file["labels"][:], job.rows["labels"])


def test_missing_shards(job):
    """HDF5 gives fill values for a shard that is missing, and `verify_index` the error."""
    path = virtual_file(job.folder, sort=False)
    job.shards[0].unlink()
    with h5py.File(path) as file:
        assert np.isnan(file["probabilities"][:30]).all()
        assert (file["labels"][:30] == np.iinfo("i4").min).all()
    with pytest.raises(ValueError, match=r"'part-0\.h5': it is missing"):
        verify_index(job.folder / "index.h5")


def test_two_names(job):
    """Index and virtual file are two files."""
    with pytest.raises(ValueError, match="`index` and `virtual` must be two names"):
        index_shards(job.folder, virtual="index.h5")


def test_ragged_outputs(folder, tools, ragged):
    """HDF5 has no virtual datasets for rows that differ in shape."""
    tools.write(folder / "a.h5", {"boxes": ragged(5)}, ragged=True)
    with pytest.raises(
        ValueError, match=r"leave out `virtual`, or use `merge_shards`.*\['boxes'\]"
    ):
        virtual_file(folder)
    assert os.listdir(folder) == ["a.h5"]


def test_too_many_runs(job, monkeypatch):
    """Rows that alternate too often between shards are refused, with what to do instead."""
    monkeypatch.setattr(indexing, "_MOST_VIRTUAL_RUNS", 20)
    with pytest.raises(ValueError, match=r"at most 20 runs .*`sort=False`.* with \d+ runs of rows"):
        virtual_file(job.folder)
    assert not (job.folder / "index.h5").exists()
    index_shards(job.folder)
    virtual_file(job.folder, sort=False)
