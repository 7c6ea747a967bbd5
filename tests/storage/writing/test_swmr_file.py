import ctypes
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from h5py._objects import phil
from two_outputs import make_steps, write

from kerasext.storage import PredictionFileWriter


def test_hdf5_is_called_by_one_thread_at_a_time(path, monkeypatch):
    """A call to HDF5 past h5py holds h5py's lock: without it, two threads corrupt its memory."""

    def is_locked():
        is_free = phil.acquire(False)
        if is_free:
            phil.release()
        return not is_free

    def call(*arguments):
        were_locked.append(other_thread.submit(is_locked).result())

    were_locked = []
    library = SimpleNamespace(H5Pset_metadata_read_attempts=call)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    with ThreadPoolExecutor(1) as other_thread:
        write(path, make_steps([5]))
        PredictionFileWriter(path, mode="a").close()
    assert were_locked
    assert all(were_locked)
