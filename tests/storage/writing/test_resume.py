import h5py
import numpy as np
import pytest
from two_outputs import check_rows, make_step, make_steps, read, write

from kerasext.storage import PredictionFileWriter

# What can't go on in the file of `make_step(...)`, but could begin one of its own.
OTHER_FILES = {
    "missing output": {"a": np.zeros((4, 3), "f4")},
    "one output more": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(4, "i4"), "c": np.zeros(4)},
    "other dtype": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(4, "i8")},
    "other row shape": {"a": np.zeros((4, 2), "f4"), "b": np.zeros(4, "i4")},
}


@pytest.mark.parametrize("calls", [[[5], [3]], [[7, 50_000], [1], [0], [30_000, 2]], [[0], [4, 4]]])
def test_adding_rows(path, calls):
    """Under "a" each call goes on after the rows of the last, wherever their chunks end."""
    rows = 0
    for sizes in calls:
        write(path, make_steps(sizes, rows), mode="a")
        assert read(path)[1]["first_row"] == rows
        rows += sum(sizes)
        check_rows(path, rows)


def test_adding_rows_keeps_what_is_stored(path):
    """Added rows are cast and encoded as the present ones, and attributes stay as they are."""
    for text in ("a", "größe"):
        step = {"x": np.array([0.5], "f4"), "labels": np.array([text])}
        arguments = {"dtypes": {"x": "f2", "labels": "S8"}, "class_names": [text]}
        write(path, [step], mode="a", attributes={"model_name": text}, **arguments)
    outputs, _ = read(path)
    assert outputs["x"].dtype == np.float16
    assert [text.decode() for text in outputs["labels"]] == ["a", "größe"]
    with h5py.File(path) as file:
        assert file.attrs["model_name"] == b"a"
        assert file["labels"].attrs["class_names"].tolist() == [b"a"]


@pytest.mark.parametrize("other", OTHER_FILES)
def test_adding_other_outputs(path, other):
    """Under "a" other outputs, shapes and dtypes are refused, and the file stays byte for byte."""
    write(path, [make_step(0, 5)])
    before = path.read_bytes()
    writer = PredictionFileWriter(path, mode="a")
    with pytest.raises(ValueError, match=r"another file\. Stored: "):
        writer.append(OTHER_FILES[other])
    writer.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_adding_to_an_incomplete_file(path):
    """Under "a" an incomplete file is refused at once, and "resume" is named as the way out."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, 5))
    writer.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"interrupted.*mode='resume'.*with 5 rows"):
        PredictionFileWriter(path, mode="a")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_adding_is_interrupted(path):
    """A call that adds rows and does not finish leaves the earlier rows and says so."""
    write(path, [make_step(0, 5)])
    writer = PredictionFileWriter(path, mode="a")
    writer.append(make_step(5, 3))
    writer.close()
    assert read(path)[1]["first_row"] == 5
    check_rows(path, 8, complete=False)


def test_adding_to_a_foreign_file(path):
    """Under "a" an HDF5 file of another kind is refused and stays byte for byte."""
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros((4, 3), "f4")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="must be a prediction file"):
        PredictionFileWriter(path, mode="a")
    assert path.read_bytes() == before
