import shutil

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.format import superblock


@pytest.fixture
def killed(path):
    """A copy of a file that a writer has open, with 1,000 committed rows of 1,500."""
    writer = PredictionFileWriter(path)
    writer.append({"x": np.arange(1000)})
    writer.commit()
    writer.append({"x": np.arange(500)})
    copy = path.with_name("killed.h5")
    shutil.copy(path, copy)
    writer.close()
    return copy


def test_lookup3_is_what_hdf5_has(path):
    """The checksum is the one that HDF5 stores in its own files."""
    with h5py.File(path, "w", libver=("v110", "v110")):
        pass
    block = path.read_bytes()[:48]
    assert superblock.lookup3(block[:44]) == int.from_bytes(block[44:], "little")


def test_a_killed_writer_shows(killed):
    """A file that a writer had open says so, and plain h5py refuses it."""
    assert superblock.parse(killed.read_bytes()[: superblock.SIZE]).is_marked
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(killed)


def test_a_repaired_file_opens(killed):
    """After the repair plain h5py opens the file for reading and writing."""
    superblock.repair(killed)
    block = superblock.parse(killed.read_bytes()[: superblock.SIZE])
    assert (block.is_marked, block.end) == (False, killed.stat().st_size)
    for mode in ("r", "r+"):
        with h5py.File(killed, mode) as file:
            np.testing.assert_array_equal(file["x"][:1000], np.arange(1000))


def test_a_file_that_is_too_short_is_made_longer(killed):
    """Where the end of the file was not written, it is made up: committed rows are before it."""
    with h5py.File(killed, "r", swmr=True, locking=False) as file:
        chunk = file["x"].id.get_chunk_info(0)
    content = killed.read_bytes()
    end = max(chunk.byte_offset + chunk.size, len(content) - 8192)
    killed.write_bytes(content[: max(end, len(content) - 4096)])
    superblock.repair(killed)
    block = superblock.parse(killed.read_bytes()[: superblock.SIZE])
    assert (block.is_marked, block.end) == (False, killed.stat().st_size)
    with PredictionFile(killed) as predictions:
        np.testing.assert_array_equal(predictions["x"][:], np.arange(1000))


def test_a_whole_file_is_left_alone(path):
    """There is nothing to repair in a file that was closed."""
    writer = PredictionFileWriter(path)
    writer.append({"x": np.arange(10)})
    writer.finish()
    before = path.read_bytes()
    superblock.repair(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", bytes(48)])
def test_what_is_no_superblock_is_refused(content, path):
    """What has no intact superblock is not touched."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match="superblock is damaged"):
        superblock.repair(path)
    assert path.read_bytes() == content


def test_a_damaged_superblock_is_refused(killed):
    """A superblock with a wrong checksum is not trusted."""
    content = bytearray(killed.read_bytes())
    content[30] ^= 1
    killed.write_bytes(content)
    with pytest.raises(ValueError, match="superblock is damaged"):
        superblock.repair(killed)
