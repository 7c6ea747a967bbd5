import importlib
import os

import h5py
import numpy as np
import pytest

from kerasext.shards import index_shards, merge_shards
from kerasext.storage import PredictionFile, PredictionFileWriter

merging = importlib.import_module("kerasext.shards.merge_shards")  # which the function hides


@pytest.mark.parametrize("kind", ["job", "number_job"])
@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("most", [1, 7, 65536])
def test_rows(kind, sort, most, tools, tmp_path, request, monkeypatch):
    """The file is an ordinary one, with the rows of all shards, however few are read at once."""
    monkeypatch.setattr(merging, "_MOST_ROWS", most)
    job = request.getfixturevalue(kind)
    before = job.state()
    path = merge_shards(job.folder, tmp_path / "all.h5", sort=sort)
    with PredictionFile(path) as predictions:
        assert predictions.complete
        tools.assert_rows(predictions, job.by_id if sort else job.rows)
        assert predictions.class_names == ["cat", "größe", "dog"]
        assert predictions.origin["model_fingerprint"] == "abc"
        assert "rank" not in predictions.origin
        predictions.verify()
    assert job.state() == before
    with h5py.File(path) as file:
        assert not file["labels"].is_virtual
        assert file["_kerasext/record"]["data_rows"] == 600
        assert "shards" not in file["_kerasext"]
        assert len(file["head/probabilities"].attrs["class_names"]) == 2


def test_same_bytes_as_stored(job, tmp_path):
    """Numbers in fixed point, text and NaN are copied as they stand in the shards."""
    path = merge_shards(job.folder, tmp_path / "all.h5", sort=False)
    stored = []
    for shard in job.shards:
        with h5py.File(shard) as file:
            stored.append(file["head/probabilities"][:])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["head/probabilities"][:], np.concatenate(stored))


def test_ragged(folder, tools, ragged, tmp_path):
    """Rows of different shapes are merged, too."""
    rows = {"boxes": ragged(50), "ids": np.arange(50)[::-1]}
    for number in range(3):
        part = slice(number * 20, min(number * 20 + 20, 50))
        tools.write(folder / f"{number}.h5", rows, part, ragged=["boxes"])
    for sort in (True, False):
        with PredictionFile(merge_shards(folder, tmp_path / f"{sort}.h5", sort=sort)) as merged:
            found = merged["boxes"][:]
            expected = list(rows["boxes"])[:: -1 if sort else 1]
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other, strict=True)


def test_no_rows(folder, tools, ragged, tmp_path):
    """Shards without a row make a file without one."""
    rows = {"labels": np.zeros(0, "i4"), "boxes": ragged(0), "names": np.zeros(0, "U5")}
    for number in range(2):
        tools.write(folder / f"{number}.h5", rows, ragged=["boxes"])
    with PredictionFile(merge_shards(folder, tmp_path / "all.h5")) as merged:
        assert (merged.rows, merged.complete, len(merged)) == (0, True, 3)


def test_beside_an_index(job, tools, tmp_path):
    """An index in the folder is no shard."""
    index_shards(job.folder)
    with PredictionFile(merge_shards(job.folder, tmp_path / "all.h5")) as predictions:
        tools.assert_rows(predictions, job.by_id)


def test_target(job, tmp_path):
    """The file must not exist, nor become a shard itself."""
    (tmp_path / "all.h5").write_text("mine")
    with pytest.raises(FileExistsError):
        merge_shards(job.folder, tmp_path / "all.h5")
    assert (tmp_path / "all.h5").read_text() == "mine"
    with pytest.raises(ValueError, match="must not be in the folder of the shards"):
        merge_shards(job.folder, job.folder / "all.h5")
    with pytest.raises(FileNotFoundError):
        merge_shards(job.folder, tmp_path / "missing" / "all.h5")


def test_nothing_is_left_after_an_error(job, tmp_path, monkeypatch):
    """A merge that fails half-way leaves no file that might be taken for the whole."""
    monkeypatch.setattr(merging, "_MOST_ROWS", 50)
    append = PredictionFileWriter.append

    def fail_later(writer, step, **options):
        append(writer, step, **options)
        if writer.rows > 100:
            raise OSError("gone")

    monkeypatch.setattr(PredictionFileWriter, "append", fail_later)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OSError, match="gone"):
        merge_shards(job.folder, tmp_path / "all.h5")
    assert sorted(os.listdir(tmp_path)) == before
