import h5py
import numpy as np
import pytest
from recorded import with_checksum

from kerasext.storage.format import commit_record
from kerasext.storage.format.commit_record import RECORD_DTYPE, CallState
from kerasext.storage.format.layout import RECORD

FIELDS = {
    "rows": 7,
    "first_row": 3,
    "data_rows": 9,
    "first_data_row": 4,
    "complete": True,
    "ended": 1e9,
    "bytes": 28,
    "seconds": 0.5,
}


def record(**fields):
    """A record with other fields, its checksum right."""
    made = np.zeros((), RECORD_DTYPE)
    for name, value in {**FIELDS, **fields}.items():
        made[name] = value
    return with_checksum(made)


def test_read_as_written(path):
    """What was written past HDF5 is what is read, and what plain h5py shows."""
    with h5py.File(path, "w") as file:
        file[RECORD] = CallState().to_record()
        file.flush()
        commit_record.CommitRecord(file).write(CallState(**FIELDS))
        offset = commit_record.find(file).id.get_offset()
    content = path.read_bytes()[offset : offset + RECORD_DTYPE.itemsize]
    assert CallState.parse(content) == CallState(**FIELDS)
    with h5py.File(path) as file:
        assert file[RECORD][()] == record()


@pytest.mark.parametrize("byte", range(RECORD_DTYPE.itemsize))
def test_every_byte_is_covered(byte):
    """A flipped bit anywhere, the checksum included, is found."""
    content = bytearray(record().tobytes())
    content[byte] ^= 1
    with pytest.raises(ValueError, match="record of commits is"):
        CallState.parse(bytes(content))


@pytest.mark.parametrize(
    "fields",
    [
        {"rows": -1, "first_row": -1},
        {"first_row": 8},
        {"data_rows": 6},
        {"first_data_row": -1},
        {"first_data_row": 10},
        {"complete": 2},
        {"bytes": -1},
        {"seconds": np.nan},
        {"stalled_seconds": -1},
        {"ended": np.inf},
    ],
    ids=str,
)
def test_senseless_records(fields):
    """A record that can't be, though its checksum is right, is refused."""
    with pytest.raises(ValueError, match="record of commits is"):
        CallState.parse(record(**fields).tobytes())


def test_a_record_that_is_cut():
    """Fewer bytes than a record has are none."""
    with pytest.raises(ValueError, match="ends before the record"):
        CallState.parse(record().tobytes()[:-1])
