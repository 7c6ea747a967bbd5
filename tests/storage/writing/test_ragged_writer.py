"""Outputs whose rows differ in shape, as they stand in the file: read back with plain h5py."""

import itertools

import h5py
import numpy as np
import pytest
from interrupting import interrupted

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows
from kerasext.storage.format.commit_record import CommitRecord

RECORD = "_kerasext/record"
OUTPUTS = ["tokens", "head/boxes", "n"]
SIZES = [[5], [1], [0], [3, 0, 1, 9], [0, 4, 4], [1] * 40, [2000, 1, 3000]]


def make_steps(sizes, first=0):
    """Steps whose rows tell where they stand: vectors, matrices and single numbers."""
    for size in sizes:
        row = np.arange(first, first + size)
        lengths = row * 7 % 5
        tokens = RaggedRows(np.repeat(row, lengths).astype("i4"), lengths[:, None].astype("i8"))
        shapes = np.stack([row % 3, row % 4], axis=1).astype("i8")
        boxes = RaggedRows(np.repeat(row, shapes.prod(axis=1)).astype("f4"), shapes)
        yield {"tokens": tokens, "head/boxes": boxes, "n": row}
        first += size


def write(path, steps, *, end="finish", ragged=True, **options):
    """Writes steps, each with a commit."""
    writer = PredictionFileWriter(path, ragged=ragged, **options)
    for step in steps:
        writer.append(step)
        writer.commit()
    getattr(writer, end)()


def read_ragged(group, rows):
    """The rows of a group as lists, from its datasets."""
    splits, values = group["row_splits"][: rows + 1], group["values"]
    assert (splits[0], len(splits)) == (0, rows + 1)
    assert (np.diff(splits) >= 0).all()
    axes = int(group.attrs["ragged_axes"])
    assert set(group) == {"values", "row_splits"} | ({"row_shapes"} if axes > 1 else set())
    shapes = group["row_shapes"][:rows] if axes > 1 else np.diff(splits)[:, None]
    return [
        values[start:end].reshape(shape)
        for start, end, shape in zip(splits, splits[1:], shapes, strict=False)
    ]


def check(path, rows, *, complete=True, names=OUTPUTS):
    """The file has so many rows, the same in every output, and the right ones."""
    (expected,) = make_steps([rows])
    with h5py.File(path) as file:
        assert (file[RECORD]["rows"], file[RECORD]["complete"]) == (rows, complete)
        for name in names:
            if isinstance(expected[name], RaggedRows):
                for found, right in zip(read_ragged(file[name], rows), expected[name], strict=True):
                    np.testing.assert_array_equal(found, right, strict=True)
            else:
                np.testing.assert_array_equal(file[name][:rows], expected[name])


@pytest.mark.parametrize(
    ("sizes", "expected_rows", "compression"),
    [
        *itertools.product(SIZES, [None, 4, 100_000], ["auto"]),
        *itertools.product(
            [SIZES[3], SIZES[-1]], [None, 4], [None, "gzip", "zstd", {"tokens": "gzip"}]
        ),
    ],
    ids=str,
)
def test_layout(path, sizes, expected_rows, compression):
    """Values, splits and shapes of every row, trimmed at the end, with checksums that fit."""
    write(path, make_steps(sizes), expected_rows=expected_rows, compression=compression)
    check(path, sum(sizes))
    with h5py.File(path) as file:
        group = file["head/boxes"]
        assert group["row_splits"].dtype == group["row_shapes"].dtype == np.int64
        assert group["row_splits"].shape == (sum(sizes) + 1,)
        assert group["row_shapes"].shape == (sum(sizes), 2)
        assert group["values"].shape == (group["row_splits"][-1],)
    with PredictionFile(path) as predictions:
        predictions.verify()


@pytest.mark.parametrize("end", ["finish", "close"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_commit(path, sizes, end):
    """Each commit shows its rows to readers, and the end says whether it was one."""
    writer, rows = PredictionFileWriter(path, ragged=["tokens", "head"]), 0
    for step in make_steps(sizes):
        writer.append(step)
        rows += len(step["n"])
        writer.commit()
        with PredictionFile(path) as predictions:
            assert [len(output) for output in predictions.values()] == [rows] * 3
            (expected,) = make_steps([rows])
            for found, right in zip(predictions["tokens"], expected["tokens"], strict=True):
                np.testing.assert_array_equal(found, right)
    getattr(writer, end)()
    check(path, rows, complete=end == "finish")


def test_dense_steps_of_other_shapes(path):
    """Arrays whose further axes differ between steps are rows of those shapes, each in C order."""
    rng = np.random.default_rng(0)
    shapes = [(3, 4, 5, 2), (1, 2, 6, 2), (2, 0, 3, 2), (0, 9, 9, 9), (4, 1, 1, 7)]
    steps = [{"mask": np.asfortranarray(rng.random(shape))} for shape in shapes]
    write(path, steps, ragged=["mask"])
    with h5py.File(path) as file:
        found = read_ragged(file["mask"], 10)
    for row, right in zip(found, [row for step in steps for row in step["mask"]], strict=True):
        np.testing.assert_array_equal(row, right, strict=True)


def test_dtypes_and_strings(path):
    """`dtypes` are those of the values, and strings are of fixed width."""
    rows = RaggedRows(np.array(["größe", "", "a"], object), np.array([[2], [0], [1]]))
    numbers = RaggedRows(np.array([0.5, 1, 2]), np.array([[0, 3], [1, 3], [0, 0]]))
    write(path, [{"text": rows, "x": numbers}], dtypes={"text": "S9", "x": "f2"})
    with h5py.File(path) as file:
        assert (file["text/values"].dtype, file["x/values"].dtype) == ("S9", "f2")
        first, *_ = read_ragged(file["text"], 3)
        assert [text.decode() for text in first] == ["größe", ""]
    with PredictionFile(path) as predictions:
        assert predictions["text"][0].tolist() == ["größe", ""]
        np.testing.assert_array_equal(predictions["x"][1], np.array([[0.5, 1, 2]], "f2"))


def test_class_names(path):
    """Rows of labels have the names of the classes, as others do."""
    labels = RaggedRows(np.array([0, 1, 1]), np.array([[1], [2]]))
    write(path, [{"labels": labels}], class_names=["cat", "dog"])
    with PredictionFile(path) as predictions:
        assert predictions.class_names[predictions["labels"][1]].tolist() == ["dog", "dog"]


@pytest.mark.parametrize("compression", ["auto", None, "gzip"])
@pytest.mark.parametrize("calls", [[[5], [3]], [[7, 5000], [1], [0], [3000, 2]], [[0], [4, 4]]])
def test_adding_rows(path, calls, compression):
    """`mode='a'` adds rows after those that are there, and all of them can be verified."""
    rows = 0
    for sizes in calls:
        steps = make_steps(sizes, rows)
        write(path, steps, mode="a", compression=compression, expected_rows=100)
        rows += sum(sizes)
        check(path, rows)
        with PredictionFile(path) as predictions:
            predictions.verify()


@pytest.mark.parametrize("known", [0, 1, 4])
@pytest.mark.parametrize("rows", [4, 9, 3000])
def test_resuming(path, rows, known):
    """`mode='resume'` goes on after the last rows, which are compared with those in the file."""
    write(path, make_steps([rows]), end="close", expected_rows=10)
    writer = PredictionFileWriter(path, mode="resume", ragged=True)
    writer.append(*make_steps([known + 20], rows - known), known=known)
    writer.finish()
    check(path, rows + 20)


def change_value(rows):
    """Changes one number."""
    values = rows.values.copy()
    values[-1] += 1
    return RaggedRows(values, rows.row_shapes)


def change_shape(rows):
    """Transposes the rows."""
    return RaggedRows(rows.values, rows.row_shapes[:, ::-1].copy())


def change_length(rows):
    """Repeats a number."""
    shapes = rows.row_shapes.copy()
    shapes[-1] = [1, 7]
    size = int(shapes.prod(axis=1).sum())
    return RaggedRows(np.resize(rows.values, size), shapes)


@pytest.mark.parametrize("change", [change_value, change_shape, change_length])
def test_resuming_with_other_rows(path, change):
    """Rows of other values, lengths or shapes than those in the file are refused."""
    write(path, make_steps([12]), end="close")
    writer = PredictionFileWriter(path, mode="resume", ragged=True)
    (step,) = make_steps([6], 8)
    step["head/boxes"] = RaggedRows.concatenate(
        [change(step["head/boxes"][:4]), *[step["head/boxes"][4:]]]
    )
    with pytest.raises(ValueError, match="other values of output 'head/boxes'"):
        writer.append(step, known=4)
    writer.close()
    check(path, 12, complete=False)


DENSE = {"x": np.ones((4, 3))}
OTHER_FILES = {
    "not asked": (DENSE, True, DENSE, False, r"pass `ragged=\['x'\]`. Received: 'x' not in"),
    "asked": (DENSE, False, DENSE, True, "take it out of `ragged`. Received: 'x' in `ragged`"),
    "axes": (DENSE, True, {"x": np.ones((4, 3, 3))}, True, "rows of 1 axes.*rows of 2 axes"),
    "dtype": (DENSE, True, {"x": np.ones((4, 3), "f4")}, True, "Stored: .*float64.*float32"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_adding_other_rows(path, name):
    """Rows that the file was not made for are refused with the remedy, and it stays as it is."""
    first, first_ragged, second, second_ragged, message = OTHER_FILES[name]
    write(path, [first], ragged=first_ragged)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        write(path, [second], ragged=second_ragged, mode="a")
    assert path.read_bytes() == before


def test_what_is_beyond_the_record_is_overwritten(path, monkeypatch):
    """Rows that were written and not committed are no rows, neither to readers nor to a resume."""
    writer = PredictionFileWriter(path, ragged=True)
    first, second = make_steps([9, 5])
    writer.append(first)
    writer.commit()
    with monkeypatch.context() as patch:
        patch.setattr(CommitRecord, "write", lambda *_: None)
        writer.append(second)
        writer.commit()
        killed = path.read_bytes()
    writer.close()
    path.write_bytes(killed)
    with PredictionFile(path) as predictions:
        for found, right in zip(
            predictions["tokens"], next(make_steps([9]))["tokens"], strict=True
        ):
            np.testing.assert_array_equal(found, right)
    write(path, make_steps([30], 9), mode="resume")
    check(path, 39)


BAD_STEPS = {
    "axes": ({"x": np.ones((2, 3, 3))}, ValueError, "'x' must have the same number of axes"),
    "no axes": ({"x": np.ones(2)}, ValueError, "'x' must have the same number of axes"),
    "dtype": ({"x": np.ones((2, 3), "i4")}, ValueError, "'x' must have the same dtype"),
    "rows": ({"x": np.ones((3, 3))}, ValueError, "same number of rows"),
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_later_step_is_refused(path, name):
    """A step that does not go with the first one is refused by name, rows before it stay."""
    step, error, message = BAD_STEPS[name]
    writer = PredictionFileWriter(path, ragged=["x"])
    writer.append({"x": np.ones((2, 5)), "n": np.ones(2)})
    with pytest.raises(error, match=message):
        writer.append({"n": np.ones(2), **step})
    writer.append({"x": np.ones((2, 1)), "n": np.ones(2)})
    writer.finish()
    with h5py.File(path) as file:
        assert [row.shape for row in read_ragged(file["x"], 4)] == [(5,), (5,), (1,), (1,)]


def test_value_that_does_not_fit(path):
    """A number too large for the dtype that was asked for is an error that names the output."""
    rows = RaggedRows(np.array([300]), np.array([[1]]))
    with pytest.raises(ValueError, match="A value of output 'x' does not fit"):
        write(path, [{"x": rows}], dtypes={"x": "u1"})


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_interrupt_at_any_line(path, every):
    """Ctrl-C anywhere in a step leaves whole rows after closing: none or all of that step."""
    first, second = make_steps([40, 1500])
    for line in range(1, 2000, every):
        writer = PredictionFileWriter(path, mode="w", ragged=True, expected_rows=5)
        writer.append(first)
        came = interrupted(line, writer.append, second)
        writer.close()
        with PredictionFile(path) as predictions:
            rows = predictions.rows
        assert rows in ({40, 1540} if came else {1540})
        check(path, rows, complete=False)
        if not came:
            break
    assert 10 < line < 1999
