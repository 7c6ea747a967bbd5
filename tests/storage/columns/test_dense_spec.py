import h5py
import ml_dtypes
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.fixed_point import attributes_for

STANDARD = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
EMOJI = "\N{GRINNING FACE}"  # four bytes of UTF-8


def prepare(array, dtype=None):
    """What is stored of the first array of an output."""
    return DenseSpec.of_array("head/x", array, dtype).prepare(array)


def objects(*values):
    """One-dimensional array of Python objects."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize("dtype", [*STANDARD, ">f4", ">i8"])
def test_what_hdf5_has_is_kept(dtype):
    """Numbers that HDF5 has a type for are stored as they are, without a copy."""
    array = np.ones((3, 2), dtype)
    spec = DenseSpec.of_array("x", array)
    assert (spec.name, spec.row_shape, spec.dtype) == ("x", (2,), np.dtype(dtype))
    assert spec.h5_dtype == np.dtype(dtype)
    assert spec.row_bytes == 2 * np.dtype(dtype).itemsize
    assert spec.prepare(array) is array


@pytest.mark.parametrize(
    "dtype",
    [
        *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3, ml_dtypes.float8_e4m3fn),
        *(ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e4m3b11fnuz, ml_dtypes.float8_e3m4),
        *(ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz),
    ],
)
def test_small_floats_are_raised(dtype):
    """Floats that HDF5 lacks become float32 with the same values."""
    array = np.array([[-1.5, 0.25], [0, 2]]).astype(dtype)
    stored = prepare(array)
    expected = np.array([[-1.5, 0.25], [0, 2]], "float32")
    np.testing.assert_array_equal(stored, expected, strict=True)


@pytest.mark.parametrize(
    ("dtype", "values"), [(ml_dtypes.int4, [-8, 7]), (ml_dtypes.uint4, [0, 15])]
)
def test_four_bit_integers_are_raised(dtype, values):
    """Integers of four bits become bytes with the same values."""
    np.testing.assert_array_equal(
        prepare(np.array(values).astype(dtype)), np.array(values, "int8"), strict=True
    )


@pytest.mark.parametrize(
    "array",
    [
        objects("cat", "größe"),
        objects(b"cat", "größe".encode()),
        objects(b"cat", "größe"),
        np.array(["cat", "größe"]),
        np.array([b"cat", "größe".encode()]),
    ],
    ids=["object str", "object bytes", "both", "U", "S"],
)
def test_strings(array):
    """Strings in every form NumPy has become UTF-8 of 64 bytes, or of the width they have."""
    spec = DenseSpec.of_array("x", array)
    width = array.dtype.itemsize if array.dtype.kind == "S" else 64
    expected = np.array([b"cat", "größe".encode()], f"S{width}")
    np.testing.assert_array_equal(spec.prepare(array), expected, strict=True)
    info = h5py.check_string_dtype(spec.h5_dtype)
    assert (info.encoding, info.length) == ("utf-8", width)


def test_strings_of_higher_rank_and_none():
    """Arrays of strings keep their shape, also without any string."""
    array = np.array([["a", "b", "c"], ["d", "e", "f"]])
    np.testing.assert_array_equal(prepare(array, "S1"), array.astype("S1"), strict=True)
    np.testing.assert_array_equal(prepare(array[:0]), np.empty((0, 3), "S64"), strict=True)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, "timedelta64[s]"),
        np.zeros(2, "V8"),
        np.zeros(2, [("a", "i4")]),
        objects(np.zeros(2), np.zeros(3)),
        objects({"a": 1}, {"a": 2}),
        objects("a", 1),
        objects("a", None),
        np.array({"a": 1}, dtype=object),
    ],
    ids=repr,
)
def test_what_hdf5_lacks(array):
    """What is neither number nor string is refused by name."""
    with pytest.raises(TypeError, match="head/x"):
        prepare(array)


def test_rows_axis_needed():
    """A lone number is refused by name: the first axis is the rows."""
    with pytest.raises(ValueError, match="'head/x' must have rows as its first axis"):
        prepare(np.array(1.0))


def test_most_axes(path):
    """A row of more axes than HDF5 has is refused by name; one of as many is stored and read."""
    array = np.arange(6.0).reshape(3, 2, *[1] * 30)
    writer = PredictionFileWriter(path)
    writer.append({"x": array, "n": array.astype("i4")})
    writer.finish()
    with PredictionFile(path) as predictions:
        np.testing.assert_array_equal(predictions["x"][:], array)
        np.testing.assert_array_equal(predictions["n"][1:], array[1:])
        predictions.verify()
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # NumPy 1 has no array of 33 axes
        with pytest.raises(ValueError, match=r"'x' must have at most 31 axes.*\(3, 2, 1,"):
            DenseSpec.of_array("x", array[..., None])


def test_row_of_four_gib():
    """A row that HDF5 can't put into a chunk is refused by name; one just below is not."""
    largest = np.broadcast_to(np.float32(0), (2, 2**30 - 1))
    assert DenseSpec.of_array("x", largest).row_bytes == 2**32 - 4
    with pytest.raises(ValueError, match="row of output 'x' must be smaller than 4 GiB"):
        DenseSpec.of_array("x", np.broadcast_to(np.float32(0), (2, 2**30)))
    with pytest.raises(ValueError, match="row of output 'x' must be smaller than 4 GiB"):
        DenseSpec.of_array("x", np.broadcast_to(np.float32(0), (1, 2**20, 2**20, 2**20)))


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([0.1, -65504, np.inf, -np.inf, np.nan, 0, 1e-9], "f4"), "f2"),
        (np.array([0.1, 1e-300, 3e38], "f8"), "f4"),
        (np.array([0.1 + 1e30j]), "c8"),
        (np.array([0.5, 2], "f4"), "f8"),
        (np.array([0.5, 2], "f4"), "c8"),
        (np.array([-128, 127]), "i1"),
        (np.array([0, 255]), "u1"),
        (np.array([0, 2**63 - 1], "u8"), "i8"),
        (np.array([True, False]), "i4"),
        (np.array([1, 1000], "i4"), "f2"),
        (np.array([2, 3], "f4"), ">f4"),
    ],
    ids=str,
)
def test_casts(array, dtype):
    """An output is stored as asked, each value the nearest that the dtype has."""
    np.testing.assert_array_equal(prepare(array, dtype), array.astype(dtype), strict=True)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([0, 65520], "f4"), "f2"),
        (np.array([1e39, 0]), "f4"),
        (np.array([1e39j]), "c8"),
        (np.array([70000]), "f2"),
        (np.array([0, 128]), "i1"),
        (np.array([0, -129]), "i1"),
        (np.array([-1, 0]), "u8"),
        (np.array([2**63], "u8"), "i8"),
        (np.array([2**40]), "i4"),
    ],
    ids=str,
)
def test_values_that_do_not_fit(array, dtype):
    """A value outside the range of the dtype asked for is refused by name, never wrapped."""
    with pytest.raises(ValueError, match=f"'head/x' does not fit.*dtype={np.dtype(dtype)}"):
        prepare(array, dtype)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        *(("f4", "i4"), ("f4", "?"), ("i4", "?"), ("c8", "f4"), ("f4", "S8"), ("i4", "S8")),
        *(("S4", "f4"), ("U4", "i4"), ("O", "f4"), ("U4", "U4"), ("U4", "O"), ("U4", "S")),
        *(("f4", "M8[s]"), ("f4", "O"), ("f4", "V4"), ("f4", ml_dtypes.bfloat16)),
        *(("f4", "u4"), ("f4", "i1"), ("f4", "u8"), ("c8", "u1"), ("S4", "u1"), ("O", "u2")),
        *((ml_dtypes.bfloat16, "i1"), (ml_dtypes.int4, "u1")),
    ],
)
def test_dtypes_that_hold_something_else(dtype, stored):
    """Asking for a dtype that can't hold such values is refused by name at the first step."""
    with pytest.raises(TypeError, match="'head/x' can't be stored as asked"):
        prepare(np.zeros(2, dtype), stored)


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2"])
@pytest.mark.parametrize("given", ["f2", "f4", "f8", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3])
def test_floats_as_whole_numbers(given, dtype):
    """Floats of every kind fill the range of a small unsigned dtype, and its largest is NaN."""
    array = np.array([[0, 1], [np.nan, 0.5]]).astype(given)
    spec = DenseSpec.of_array("head/x", array, dtype)
    top = np.iinfo(dtype).max - 1
    expected = np.array([[0, top], [top + 1, top // 2]], dtype)
    np.testing.assert_array_equal(spec.prepare(array), expected, strict=True)
    assert (spec.dtype, spec.scale) == (np.dtype(dtype), np.float32(1 / top))
    with pytest.raises(ValueError, match="'head/x' must have the same dtype"):
        spec.prepare(expected)
    assert DenseSpec.of_array("head/x", expected, dtype).scale is None
    assert DenseSpec.of_array("head/x", expected > 0, dtype).scale is None


def test_spec_of_a_dataset_of_whole_numbers():
    """A dataset says by its attributes whether floats or integers can be added to it."""
    spec = DenseSpec.of_array("x", np.zeros(3), "u1")
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        integers = DenseSpec.of_dataset(file.create_dataset("x", 3, "u1"))
        file["x"].attrs.update(attributes_for(spec.dtype))
        floats = DenseSpec.of_dataset(file["x"])
    assert floats.check_same(spec, "a.h5") is None
    assert integers.check_same(DenseSpec.of_array("x", np.zeros(3, "i8"), "u1"), "a.h5") is None
    for one, other in ((floats, integers), (integers, floats)):
        with pytest.raises(ValueError, match=r"dtype uint8.* in steps of 0\.0039"):
            one.check_same(other, "a.h5")


@pytest.mark.parametrize("text", [EMOJI * 2, "ü" * 4, "a" * 8, "a\0b", ""])
@pytest.mark.parametrize("encode", [False, True])
def test_strings_of_exact_width(text, encode):
    """A string of exactly as many bytes as asked for is kept whole."""
    array = objects(text.encode() if encode else text)
    assert prepare(array, "S8").tolist() == [text.encode()]


@pytest.mark.parametrize("text", [EMOJI * 2 + "a", "ü" * 5, "a" * 9])
@pytest.mark.parametrize("array_dtype", [object, "U"])
def test_strings_that_are_too_long(text, array_dtype):
    """A longer string is refused, with the entry in `dtypes` that would hold it."""
    message = f"'head/x' is longer.*'head/x': 'S{len(text.encode())}'"
    with pytest.raises(ValueError, match=message):
        prepare(np.array(["a", text], array_dtype), "S8")


@pytest.mark.parametrize("dtype", [object, "S2", "S8", "S9"])
def test_bytes_that_are_no_utf8(dtype):
    """Bytes that are no text are refused by name, whatever the dtype they come in."""
    with pytest.raises(ValueError, match="'head/x' must be UTF-8"):
        prepare(np.array([b"a", b"\xff\xfe"], dtype), "S8")


def test_text_that_is_no_utf8():
    """A lone surrogate, which UTF-8 lacks, is refused by name."""
    with pytest.raises(ValueError, match="'head/x' must be UTF-8"):
        prepare(objects("a\ud800"))


@pytest.mark.parametrize("value", ["a\0", b"a\0", "\0"])
def test_strings_that_end_in_nul(value):
    """A NUL at the end, which would be lost in the file, is refused by name."""
    with pytest.raises(ValueError, match="'head/x' must not end in NUL"):
        prepare(objects("a", value))


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (np.zeros((2, 3), "f4"), np.zeros((2, 3), "f8")),
        (np.zeros((2, 3), "f8"), np.zeros((2, 3), "f4")),
        (np.zeros((2, 3), "f4"), np.zeros((2, 3), "i4")),
        (np.zeros((2, 3), "f4"), np.zeros((2, 3), ">f4")),
        (np.zeros(2, "i4"), np.zeros(2, "i8")),
        (np.zeros((2, 3), "f4"), np.zeros((2, 4), "f4")),
        (np.zeros((2, 3), "f4"), np.zeros((2, 3, 1), "f4")),
        (np.zeros((2, 3), "f4"), np.zeros(2, "f4")),
        (np.zeros(2, "f4"), np.array(0, "f4")),
        (np.array(["a"]), np.zeros(1, "f4")),
        (np.zeros(1, "f4"), np.array(["1.5"])),
        (np.zeros(1, "f4"), objects("abc")),
        (np.zeros(1, "i8"), np.array([b"12"])),
        (np.zeros(1, "?"), np.array(["1"])),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_later_steps_that_differ(first, later):
    """A later step of another row shape or dtype is refused by name."""
    spec = DenseSpec.of_array("head/x", first)
    with pytest.raises(ValueError, match="'head/x'"):
        spec.prepare(later)


def test_later_strings_may_be_shorter_or_longer():
    """Steps of strings need not have the same NumPy width, as long as they fit."""
    spec = DenseSpec.of_array("x", np.array(["a"]), "S8")
    for later in (np.array(["abcdefgh"]), np.array([b"abc"]), objects("ü" * 4)):
        assert spec.prepare(later).dtype == np.dtype("S8")


@pytest.mark.parametrize("dtype", [*STANDARD, ">f4", "S12"])
def test_spec_of_a_dataset(dtype):
    """What a dataset says of itself is what it was made with, so that rows can be added to it."""
    spec = DenseSpec.of_array("head/x", np.zeros((2, 3, 0, 4), dtype), dtype)
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        file.create_dataset("head/x", (5, 3, 0, 4), dtype=spec.h5_dtype)
        read = DenseSpec.of_dataset(file["head/x"])
    assert (read.name, read.row_shape, read.dtype) == ("head/x", (3, 0, 4), np.dtype(dtype))
    assert read.check_same(spec, "a.h5") is None


@pytest.mark.parametrize("other", [np.zeros((1, 4), "f4"), np.zeros((1, 3), "f8"), np.zeros(1)])
def test_rows_of_another_spec(other):
    """Rows for a dataset of another row shape or dtype are refused, naming output and file."""
    spec = DenseSpec.of_array("x", np.zeros((1, 3), "f4"))
    with pytest.raises(ValueError, match=r"Output 'x' must keep.*a\.h5"):
        spec.check_same(DenseSpec.of_array("x", other), "a.h5")
