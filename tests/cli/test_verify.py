import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter


@pytest.fixture
def file(path):
    """A complete file of 5,000 rows."""
    writer = PredictionFileWriter(path)
    random = np.random.default_rng(0)
    writer.append({name: random.normal(size=(5000, 4)) for name in ("first", "second")})
    writer.finish()
    return path


def test_whole_file(kerasext, file):
    """A file as it was written is exit code 0 and a line."""
    assert kerasext("verify", file) == (0, f"{file}: 5,000 rows are as they were written\n", "")


def test_damaged_rows(kerasext, file):
    """One bit that is another is exit code 1, and the output is named."""
    with h5py.File(file) as opened:
        place = opened["second"].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[place + 100] ^= 1
    file.write_bytes(content)
    code, out, err = kerasext("verify", file)
    assert (code, out) == (1, "")
    assert "the rows of 'second' are not those that were written" in err


def test_damaged_structure(kerasext, file):
    """A file that was cut short is exit code 1 too."""
    file.write_bytes(file.read_bytes()[:-40000])
    code, out, err = kerasext("verify", file)
    assert (code, out) == (1, "")
    assert str(file) in err


def test_incomplete_file(kerasext, path):
    """A file that is not complete is verified as well, and said to be incomplete."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.arange(3)})
    writer.close()
    code, out, _ = kerasext("verify", path)
    assert code == 0
    assert "3 rows are as they were written; it is incomplete" in out
