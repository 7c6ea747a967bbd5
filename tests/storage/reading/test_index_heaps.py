import contextlib

import h5py
import numpy as np
import pytest

from kerasext.storage.reading.file_view import FileView
from kerasext.storage.reading.index_heaps import check_heaps, find_heaps


@pytest.fixture
def path(tmp_path):
    """A file with a virtual dataset, and data that look like heaps."""
    path = tmp_path / "index.h5"
    layout = h5py.VirtualLayout((300,), "f4")
    for number in range(300):
        layout[number] = h5py.VirtualSource(f"{number}.h5", "p", shape=(9,))[number % 7]
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.create_virtual_dataset("p", layout)
        lookalike = b"GCOL\1\0\0\0"
        file["data"] = np.frombuffer(
            lookalike + b"\x20" + bytes(31) + lookalike + b"\xff" * 8, "u1"
        )
    return path


def test_every_heap_is_found(path):
    """All that HDF5 knows of the parts of a virtual dataset is in what is found."""
    content = path.read_bytes()
    heaps = find_heaps(path)
    names = [content.index(f"{number}.h5\0".encode()) for number in (100, 200, 299)]
    for place in names:
        assert any(start <= place < start + size for start, size, _ in heaps.tolist())
    with contextlib.closing(FileView(path)) as view:
        check_heaps(view, heaps)


def test_data_that_look_like_a_heap(path):
    """Data are taken for a heap, which is no harm, unless no heap could be of that size."""
    start = path.read_bytes().index(b"GCOL\1\0\0\0\x20")
    found = {row[0]: row[1] for row in find_heaps(path).tolist()}
    assert found[start] == 32
    assert start + 40 not in found


def test_a_heap_that_was_changed_or_cut(path):
    """One byte of a heap that is another is found, and one that is not there."""
    heaps, content = find_heaps(path), path.read_bytes()
    first, size, _ = heaps[0].tolist()
    changed = bytearray(content)
    changed[first + size // 2] ^= 1
    for other in (bytes(changed), content[: first + size - 1]):
        path.write_bytes(other)
        with (
            contextlib.closing(FileView(path)) as view,
            pytest.raises(ValueError, match=f"byte {first} is not what was written"),
        ):
            check_heaps(view, heaps)


def test_no_heaps(tmp_path):
    """A file may have none."""
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["data"] = np.arange(3)
    heaps = find_heaps(tmp_path / "file.h5")
    assert heaps.shape == (0, 3)
