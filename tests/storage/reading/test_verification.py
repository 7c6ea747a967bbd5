"""What `mode="resume"` builds on: rows that match their checksums, and no others."""

import contextlib
import warnings

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows
from kerasext.storage.format.layout import RECORD

ROWS, STEP = 2000, 100


def dense(row):
    """Outputs with chunks of 512 and 4096 rows."""
    return {"p": (row[:, None] + np.arange(8)).astype("f4"), "labels": row.astype("i4")}


def ragged(row):
    """Rows of different shapes, in several chunks, and an output of one shape."""
    shapes = np.stack([row % 5, row % 7], axis=1)
    boxes = RaggedRows(np.repeat(row, shapes.prod(axis=1)).astype("f4"), shapes)
    return {"head/boxes": boxes, "labels": row.astype("i4")}


def write(path, outputs, *, start=0, stop=ROWS, end=None, mode="x", **options):
    """Writes steps, a commit after each; returns the writer unless it is ended."""
    writer = PredictionFileWriter(
        path, mode=mode, expected_rows=20, ragged=outputs is ragged, **options
    )
    for row in range(start, stop, STEP):
        writer.append(outputs(np.arange(row, min(row + STEP, stop))))
        writer.commit()
    if end is not None:
        getattr(writer, end)()
    return writer


def kill(path, writer, to):
    """Copies the file as a kill would leave it."""
    to.write_bytes(path.read_bytes())
    writer.close()
    return to


def damage(path, name, entry, *, size=40):
    """Zeroes some bytes of an entry of a dataset, where they are in the file."""
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        dataset = file[name]
        length = dataset.chunks[0]
        at = (entry - entry % length,) + (0,) * (dataset.ndim - 1)
        place = dataset.id.get_chunk_info_by_coord(at).byte_offset
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
    content = bytearray(path.read_bytes())
    start = place + entry % length * row_bytes
    assert any(content[start : start + size])
    content[start : start + size] = bytes(size)
    path.write_bytes(content)


def resume(path, outputs, *, lost):
    """Resumes a file, which warns if rows are lost, and finishes it; returns where it began.

    Whether it warns is not looked at if `lost` is `None`.
    """
    context = (
        pytest.warns(UserWarning, match=r"do not match their checksums.*goes on from row")
        if lost
        else contextlib.nullcontext()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if lost is None else "error")
        with context:
            writer = PredictionFileWriter(
                path, mode="resume", expected_rows=20, ragged=outputs is ragged
            )
    began = writer.rows
    known = min(began, 3)
    writer.append(outputs(np.arange(began - known, 3000)), known=known)
    writer.finish()
    expected = outputs(np.arange(3000))
    with PredictionFile(path) as predictions:
        predictions.verify()
        assert predictions.complete
        for name, right in expected.items():
            if isinstance(right, RaggedRows):
                for found, row in zip(predictions[name][:], right, strict=True):
                    np.testing.assert_array_equal(found, row)
            else:
                np.testing.assert_array_equal(predictions[name][:], right)
    return began


@pytest.mark.parametrize("end", ["kill", "close"])
@pytest.mark.parametrize("outputs", [dense, ragged])
def test_whole_files_lose_nothing(outputs, end, path, tmp_path):
    """A whole file is resumed after its last row, without a warning."""
    writer = write(path, outputs)
    killed = kill(path, writer, tmp_path / "killed.h5") if end == "kill" else path
    writer.close()
    assert resume(killed, outputs, lost=False) == ROWS


@pytest.mark.parametrize("end", ["kill", "close"])
@pytest.mark.parametrize(("name", "entry"), [("p", 1990), ("labels", 10), ("labels", ROWS - 1)])
def test_damage_after_the_last_full_chunk(name, entry, end, path, tmp_path):
    """Rows without a checksum of their own are predicted again, back to the last full chunks."""
    writer = write(path, dense)
    damaged = kill(path, writer, tmp_path / "killed.h5")
    damaged = damaged if end == "kill" else path
    damage(damaged, name, entry, size=4)
    assert resume(damaged, dense, lost=True) == 0  # `labels` has no full chunk


@pytest.mark.parametrize("entry", [0, 511, 512, 1100])
def test_damage_in_a_full_chunk_after_a_kill(entry, path, tmp_path):
    """After an unclean end every chunk is compared, and the first wrong one is where it goes on."""
    killed = kill(path, write(path, dense), tmp_path / "killed.h5")
    damage(killed, "p", entry)
    assert resume(killed, dense, lost=True) == entry // 512 * 512


def test_damage_in_a_full_chunk_of_a_closed_file(path):
    """Of a file that was closed full chunks are not read by a writer, but `verify` finds them."""
    write(path, dense, end="close")
    damage(path, "p", 600)
    writer = PredictionFileWriter(path, mode="resume", expected_rows=20)
    assert writer.rows == ROWS
    writer.append(dense(np.arange(ROWS, 3000)))
    writer.finish()
    with PredictionFile(path) as predictions, pytest.raises(ValueError, match="rows of 'p'"):
        predictions.verify()


def test_damaged_checksums(path, tmp_path):
    """A checksum that is wrong makes its chunk a wrong one."""
    killed = kill(path, write(path, dense), tmp_path / "killed.h5")
    damage(killed, "_kerasext/sums/p", 1, size=4)
    assert resume(killed, dense, lost=True) == 0  # the record covers it with the last rows


@pytest.mark.parametrize("name", ["head/boxes/values", "head/boxes/row_splits", "labels"])
def test_rows_of_different_shapes(name, path, tmp_path):
    """The first wrong chunk of any of its datasets is where a ragged output goes on."""
    killed = kill(path, write(path, ragged, stop=20_000), tmp_path / "killed.h5")
    with h5py.File(killed, "r", swmr=True, locking=False) as file:
        length = file[name].chunks[0]
        splits = file["head/boxes/row_splits"][:]
    damage(killed, name, length + 5, size=8)
    if name.endswith("values"):
        first = int(np.searchsorted(splits, length, side="right")) - 1
    else:
        first = length - name.endswith("splits")
    writer = None
    with pytest.warns(UserWarning, match=f"goes on from row {first}"):
        writer = PredictionFileWriter(killed, mode="resume", expected_rows=20, ragged=True)
    assert writer.rows == first
    writer.append(ragged(np.arange(first, 20_000)))
    writer.finish()
    with PredictionFile(killed) as predictions:
        predictions.verify()
        for found, row in zip(
            predictions["head/boxes"][:], ragged(np.arange(20_000))["head/boxes"], strict=True
        ):
            np.testing.assert_array_equal(found, row)


def test_an_unreadable_chunk(path, tmp_path):
    """A compressed chunk that can't be read any more is where it goes on."""

    def few(row):
        return {"p": (row[:, None] % 7 + np.arange(8)).astype("i4")}

    killed = kill(path, write(path, few), tmp_path / "killed.h5")
    resumed = PredictionFileWriter(killed, mode="resume", expected_rows=20)
    resumed.append(few(np.arange(ROWS, ROWS + 2000)))  # whole chunks, which are compressed
    resumed.commit()
    again = kill(killed, resumed, tmp_path / "again.h5")
    with h5py.File(again, "r", swmr=True, locking=False) as file:
        chunks = [file["p"].id.get_chunk_info(number) for number in range(5)]
        (packed,) = [chunk for chunk in chunks if not chunk.filter_mask][:1]
    content = bytearray(again.read_bytes())
    content[packed.byte_offset + 4 : packed.byte_offset + 40] = bytes(36)
    again.write_bytes(content)
    with pytest.warns(UserWarning, match=f"goes on from row {packed.chunk_offset[0]}"):
        PredictionFileWriter(again, mode="resume", expected_rows=20).close()


def test_which_rows_of_the_data_were_kept(path, tmp_path):
    """Where not all rows are kept, the data go on after the last kept row that is sound."""

    def kept(row):
        return {"p": (row[:, None] * 3 + np.arange(8)).astype("f4"), "row": row * 3 + 1}

    writer = PredictionFileWriter(path, expected_rows=20)
    writer.append(kept(np.arange(2000)), data_rows=6000)
    writer.commit()
    killed = kill(path, writer, tmp_path / "killed.h5")
    damage(killed, "p", 700)
    with pytest.warns(UserWarning, match="goes on from row 512"):
        writer = PredictionFileWriter(killed, mode="resume", expected_rows=20)
    assert (writer.rows, writer.state.data_rows) == (512, 511 * 3 + 2)
    assert writer.state.bytes == 2000 * 40 * 512 // 2000
    writer.close()


def test_rows_of_an_earlier_call(path):
    """Damage in rows that this call can't predict again is refused."""
    write(path, dense, stop=1000, end="finish")
    write(path, dense, start=1000, mode="a", end="close")
    damage(path, "labels", 10)
    with pytest.raises(ValueError, match=r"earlier `predict` calls must be whole.*mode='w'"):
        PredictionFileWriter(path, mode="resume")


def test_rows_are_not_added_to_a_damaged_file(path):
    """Under mode='a' damage is an error that says what helps."""
    write(path, dense, end="finish")
    damage(path, "labels", 10)
    with pytest.raises(ValueError, match="a file that is whole; pass mode='resume'"):
        PredictionFileWriter(path, mode="a")
    assert resume(path, dense, lost=True) == 0


@pytest.mark.parametrize("outputs", [dense, ragged])
def test_no_writer_waits_for_damaged_metadata(outputs, path, tmp_path):
    """Damage in an index of chunks hangs no writer: rows that can be read are kept.

    Those after them are predicted again. A file of rows of different shapes is refused if it can't
    be read where the last row ends.
    """
    killed = kill(path, write(path, outputs), tmp_path / "killed.h5")
    content = killed.read_bytes()
    places = [
        place
        for sign in (b"EAHD", b"EAIB", b"EADB")
        for place in range(len(content))
        if content.startswith(sign, place)
    ]
    assert len(places) >= 5
    began = set()
    for place in places:
        changed = bytearray(content)
        changed[place + 9] ^= 0x10
        killed.write_bytes(changed)
        try:
            with PredictionFile(killed) as predictions:
                list(predictions.values())
        except ValueError:
            assert outputs is ragged
            with pytest.raises(ValueError, match="The file is damaged"):
                PredictionFileWriter(killed, mode="resume")
        else:
            began.add(resume(killed, outputs, lost=None))
    assert 0 in began


def test_an_index_that_is_damaged_where_no_row_is(path, tmp_path, monkeypatch):
    """Without a row lost, the rows go to a new file that has the same ones, and goes on."""
    killed = kill(path, write(path, ragged), tmp_path / "killed.h5")
    before = killed.stat().st_ino

    def damaged(_):
        raise ValueError("index of chunks")

    monkeypatch.setattr("kerasext.storage.writing.resume.end_of_chunks", damaged)
    assert resume(killed, ragged, lost=False) == ROWS
    assert killed.stat().st_ino != before
    assert {other.name for other in tmp_path.iterdir()} == {path.name, killed.name}


def test_a_writer_whose_index_is_damaged_later(path, tmp_path):
    """Even past the check HDF5 reads damaged metadata once only, and raises an error."""
    killed = kill(path, write(path, dense), tmp_path / "killed.h5")
    writer = PredictionFileWriter(killed, mode="resume", expected_rows=20)
    content = bytearray(killed.read_bytes())
    for sign in (b"EAHD", b"EAIB"):
        for place in range(len(content)):
            if content.startswith(sign, place):
                content[place + 9] ^= 0x10
    killed.write_bytes(content)
    with pytest.raises(OSError, match="Writing failed"):
        writer.append(dense(np.arange(ROWS, ROWS + 1000)))
    writer.close()


def test_a_record_of_other_rows(path):
    """Rows that match their own checksums, but not the commit record, are not built on."""
    write(path, dense, stop=512, end="close")
    other = path.with_name("other.h5")
    write(other, lambda row: dense(row + 1), stop=512, end="close")
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file, h5py.File(other) as others:
        record = file[RECORD].id.get_offset()
        from_other = others[RECORD].id.get_offset()
        size = file[RECORD].id.get_storage_size()
    content[record : record + size] = other.read_bytes()[from_other : from_other + size]
    path.write_bytes(content)
    assert resume(path, dense, lost=True) == 0
