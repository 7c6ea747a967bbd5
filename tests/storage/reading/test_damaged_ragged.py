"""Files whose rows of different shapes do not fit together: an error, never wrong rows."""

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows

ROWS = 6
SHAPES = np.array([[2, 3], [0, 3], [1, 1], [4, 2], [1, 0], [2, 2]])


@pytest.fixture
def valid(path):
    """A whole file of one output with rows of two axes, and one with rows of one."""
    sizes = SHAPES.prod(axis=1)
    writer = PredictionFileWriter(path, ragged=True, compression=None)
    writer.append(
        {
            "a/boxes": RaggedRows(np.arange(sizes.sum(), dtype="f4"), SHAPES),
            "tokens": RaggedRows(np.arange(sizes.sum(), dtype="i4"), sizes[:, None]),
        }
    )
    writer.finish()
    return path


def read(path):
    """Reads all rows, in every way."""
    with PredictionFile(path) as predictions:
        for output in predictions.values():
            repr(output)
            rows = output[:]
            for one, again in zip(rows, output, strict=True):
                np.testing.assert_array_equal(one, again)
            for number, one in enumerate(rows):
                np.testing.assert_array_equal(one, output[number])
            output[[5, 0, 3]]
            output.padded()


def set_values(name, change):
    """Changes the entries of a dataset."""

    def damage(file):
        values = file[name][()]
        change(values)
        file[name][()] = values

    return damage


def put(name, row, value, column=None):
    """Changes one entry of a dataset."""
    key = row if column is None else (row, column)
    return set_values(name, lambda values: values.__setitem__(key, value))


def replace(name, **arguments):
    """Puts another dataset in the place of one."""

    def damage(file):
        del file[name]
        file.create_dataset(name, **arguments)

    return damage


def drop(name):
    """Takes something away."""

    def damage(file):
        del file[name]

    return damage


def link(name, target):
    """Puts a link in the place of a dataset."""

    def damage(file):
        del file[name]
        file[name] = target

    return damage


def mark(value, of="tokens"):
    """Gives the attribute that marks an output another value."""

    def damage(file):
        file[of].attrs["ragged_axes"] = value

    return damage


def shape_of_zeros(values):
    """A shape without values whose other axes no array has."""
    values[1] = [0, 2**62]


def shape_that_wraps_around(values):
    """A shape whose product is 0 in 64 bits."""
    values[1] = [2**32, 2**32]


def two_negative(values):
    """A shape whose product is right."""
    values[5] = [-2, -2]


UNLIMITED = {"maxshape": (None,), "chunks": (64,)}
DAMAGES = {
    "splits fall": (put("tokens/row_splits", 3, 2), "follow each other"),
    "splits begin later": (put("tokens/row_splits", 0, 1), "follow each other"),
    "splits begin before": (put("tokens/row_splits", 0, -1), "follow each other"),
    "a split beyond": (put("tokens/row_splits", 3, 10**6), "follow each other"),
    "the last split beyond": (put("tokens/row_splits", ROWS, 10**6), "but .*values' has shape"),
    "the last split before": (put("tokens/row_splits", ROWS, 14), "follow each other"),
    "the last split negative": (put("tokens/row_splits", ROWS, -1), "-1 rows committed"),
    "splits of another length": (put("a/boxes/row_splits", 3, 8), "as rows have"),
    "a negative shape": (put("a/boxes/row_shapes", 0, -2, 0), "as rows have"),
    "two negative axes": (set_values("a/boxes/row_shapes", two_negative), "as rows have"),
    "a shape of more": (put("a/boxes/row_shapes", 0, 3, 0), "as rows have"),
    "a shape that is huge": (put("a/boxes/row_shapes", 0, 2**62, 0), "as rows have"),
    "a shape that wraps": (set_values("a/boxes/row_shapes", shape_that_wraps_around), "as rows"),
    "zeros beside a huge axis": (set_values("a/boxes/row_shapes", shape_of_zeros), "as rows have"),
    "no values": (drop("tokens/values"), "'tokens/values' is gone"),
    "no splits": (drop("tokens/row_splits"), "'tokens/row_splits' is gone"),
    "no shapes": (drop("a/boxes/row_shapes"), "'a/boxes/row_shapes' is gone"),
    "fewer splits": (lambda file: file["tokens/row_splits"].resize((ROWS,)), "rows committed"),
    "fewer shapes": (lambda file: file["a/boxes/row_shapes"].resize((2, 2)), "rows committed"),
    "fewer values": (lambda file: file["tokens/values"].resize((3,)), "rows committed"),
    "a group of splits": (
        lambda file: file.move("a", "tokens/b") or drop("tokens/values")(file),
        "'tokens/values' is gone",
    ),
    "splits of another type": (
        replace("tokens/row_splits", data=np.zeros(ROWS + 1, "u4"), **UNLIMITED),
        "int64",
    ),
    "splits of floats": (
        replace("tokens/row_splits", data=np.zeros(ROWS + 1), **UNLIMITED),
        "int64",
    ),
    "splits of two axes": (
        replace("tokens/row_splits", data=np.zeros((99, 9), "i8"), chunks=(99, 9)),
        "of shape",
    ),
    "splits in one piece": (replace("tokens/row_splits", data=np.zeros(9, "i8")), "chunks"),
    "a huge chunk of splits": (
        replace(
            "tokens/row_splits",
            shape=(ROWS + 1,),
            dtype="i8",
            maxshape=(None,),
            chunks=(2**28,),
            compression="gzip",
        ),
        "a chunk of 'tokens/row_splits'",
    ),
    "values of two axes": (
        replace("tokens/values", data=np.zeros((99, 2)), chunks=(99, 2)),
        "must have one axis",
    ),
    "values of any length": (
        replace("tokens/values", shape=(99,), dtype=h5py.string_dtype(), **UNLIMITED),
        "fixed width",
    ),
    "external values": (
        link("tokens/values", h5py.ExternalLink("elsewhere.h5", "/values")),
        "link to another file",
    ),
    "soft link to values": (link("tokens/values", h5py.SoftLink("/tokens/row_splits")), "is gone"),
    "mark of another kind": (mark("yes"), "fixed width"),
    "mark of many": (mark([1, 1]), "number of axes"),
    "mark of nothing": (mark(h5py.Empty("i8")), "fixed width"),
    "mark of no axes": (mark(0), "number of axes, and is 0"),
    "mark of too many axes": (mark(2**40), "is 1099511627776"),
    "mark of more axes": (mark(3, of="a/boxes"), r"rows of shape \(3,\)"),
    "mark of fewer axes": (mark(2), "'tokens/row_shapes' is gone"),
}


def test_the_file_is_right_before(valid):
    """What the damages are done to can be read."""
    read(valid)


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_content(valid, damage):
    """What does not fit together is a ValueError that names the file and what is wrong."""
    change, message = DAMAGES[damage]
    with h5py.File(valid, "r+", libver=("v110", "v110")) as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        read(valid)
    assert str(valid) in str(caught.value)


@pytest.mark.parametrize("name", ["values", "row_splits", "row_shapes"])
def test_verify(valid, name):
    """A bit that is flipped in any of the datasets is found."""
    with PredictionFile(valid) as predictions:
        predictions.verify()
    with h5py.File(valid) as file:
        chunk = file[f"a/boxes/{name}"].id.get_chunk_info(0)
    content = bytearray(valid.read_bytes())
    content[chunk.byte_offset + 9] ^= 1
    valid.write_bytes(content)
    with (
        PredictionFile(valid) as predictions,
        pytest.raises(ValueError, match=f"rows of 'a/boxes/{name}' are not"),
    ):
        predictions.verify()


def test_more_in_the_group(valid):
    """What others may add to the group is passed over, and groups within it are no outputs."""
    with h5py.File(valid, "r+", libver=("v110", "v110")) as file:
        file["tokens/notes"] = np.arange(3)
        file["tokens/more/x"] = np.arange(3)
        file["tokens"].attrs["note"] = "text of any length"
    read(valid)
    with PredictionFile(valid) as predictions:
        assert sorted(predictions) == ["a/boxes", "tokens"]


def test_no_rows(path):
    """A file that has no rows yet has outputs without rows."""
    writer = PredictionFileWriter(path, ragged=True)
    writer.append({"x": np.zeros((0, 5))})
    for end in (writer.commit, writer.finish):
        with PredictionFile(path) as predictions:
            assert (len(predictions["x"]), predictions["x"][:]) == (0, [])
            assert predictions["x"].padded().shape == (0, 0)
        end()
