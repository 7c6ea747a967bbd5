import numpy as np
import pytest
from two_outputs import check_rows, make_step, make_steps, read, write

from kerasext.storage import PredictionFileWriter


def too_many_axes():
    """A step that HDF5 can't store; NumPy 1 has no such arrays."""
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        return {}
    return {"too many axes": {"a": np.zeros((4, 3), "f4"), "b": np.zeros((4, *[1] * 32))}}


BAD_FIRST_STEPS = {
    "no outputs": {},
    "other number of rows": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(5, "i4")},
    "reserved name": {"a": np.zeros((4, 3), "f4"), "_kerasext": np.zeros(4, "i4")},
    "clash of names": {"a": np.zeros((4, 3), "f4"), "a/b": np.zeros(4, "i4")},
    "no rows axis": {"a": np.zeros((4, 3), "f4"), "b": np.array(1, "i4")},
    "no HDF5 type": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(4, "M8[s]")},
    "mixed objects": {"a": np.zeros((4, 3), "f4"), "b": np.array([1, "a", 2, 3], object)},
    **too_many_axes(),
    "string too long": {"a": np.zeros((4, 3), "f4"), "b": np.array(["a" * 65] * 4)},
    "huge row": {"a": np.broadcast_to(np.float32(0), (4, 2**30)), "b": np.zeros(4, "i4")},
}
BAD_LATER_STEPS = {
    **BAD_FIRST_STEPS,
    "missing output": {"a": np.zeros((4, 3), "f4")},
    "one output more": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(4, "i4"), "c": np.zeros(4)},
    "other dtype": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(4, "i8")},
    "other row shape": {"a": np.zeros((4, 2), "f4"), "b": np.zeros(4, "i4")},
}


@pytest.mark.parametrize("bad", BAD_FIRST_STEPS)
@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_first_step_is_refused(path, mode, bad):
    """A first step that is refused makes no file, and leaves an old one byte for byte."""
    before = None
    if mode != "x":
        write(path, [make_step(0, 4)])
        before = path.read_bytes()
    writer = PredictionFileWriter(path, mode=mode)
    with pytest.raises((ValueError, TypeError)):
        writer.append(BAD_FIRST_STEPS[bad])
    writer.close()
    assert (path.read_bytes() if path.exists() else None) == before
    assert len(list(path.parent.iterdir())) == (before is not None)


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_first_step_may_be_tried_again(path, mode):
    """After a first step that was refused a good one begins the file."""
    writer = PredictionFileWriter(path, mode=mode)
    with pytest.raises(ValueError, match="number of rows"):
        writer.append(BAD_FIRST_STEPS["other number of rows"])
    writer.append(make_step(0, 4))
    writer.finish()
    check_rows(path, 4)


def test_unknown_names_in_dtypes(path):
    """A dtype for an output that there is not is refused with the outputs, and no file is made."""
    writer = PredictionFileWriter(path, dtypes={"a": "f2", "labels": "i1"})
    with pytest.raises(ValueError, match=r"`dtypes`.*\['a', 'b'\]\. Received: 'labels'"):
        writer.append(make_step(0, 4))
    writer.close()
    assert list(path.parent.iterdir()) == []


def test_dtypes_as_asked(path):
    """Outputs are stored in the dtypes asked for, and the others in their own."""
    write(path, make_steps([4, 3]), dtypes={"a": "f2"})
    outputs, _ = read(path)
    assert (outputs["a"].dtype, outputs["b"].dtype) == (np.float16, np.int32)
    np.testing.assert_array_equal(outputs["a"], make_step(0, 7)["a"])


@pytest.mark.parametrize("bad", BAD_LATER_STEPS)
def test_later_step_is_refused(path, bad):
    """A step that is refused adds nothing to any output, and the next good one goes on."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, 5))
    for first in (5, 8):
        with pytest.raises((ValueError, TypeError)):
            writer.append(BAD_LATER_STEPS[bad])
        writer.append(make_step(first, 3))
    writer.finish()
    check_rows(path, 11)
