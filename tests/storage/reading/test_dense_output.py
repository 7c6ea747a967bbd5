import h5py
import numpy as np
import pytest

from kerasext.storage import DenseOutput
from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.fixed_point import attributes_for
from kerasext.storage.reading.file_columns import FileColumn


class Source:
    """A dataset in memory, in place of a file, with more rows than are committed."""

    path = "memory"
    watch = None

    def read(self, column, key):
        return column.h5ds[key]

    def read_rows(self, start, stop):
        return self.read(slice(start, stop))


def output_of(file, name, rows):
    """An output whose first rows are committed."""
    dataset = file[name]
    column = FileColumn(Source(), DenseSpec.of_dataset(dataset), dataset, rows)
    return DenseOutput("memory", name, column)


ROWS = 50
NAMES = ["cube", "head/vector", "text", "words", "none", "flags", "steps"]
CUBE = np.arange(ROWS * 12, dtype="int32").reshape(ROWS, 4, 3)
VECTOR = np.linspace(-1, 1, ROWS).astype("float32")
WHOLE = (np.arange(ROWS * 12) % 256).astype("u1").reshape(ROWS, 4, 3)
STEPS = np.where(WHOLE == 255, np.float32(np.nan), WHOLE.astype("f4") * np.float32(1 / 254))
TEXT = np.array([f"größe {i}" if i % 7 else "" for i in range(ROWS)], "U16")
RNG = np.random.default_rng(0)

ROW_KEYS = [
    *(0, 7, ROWS - 1, -1, -ROWS, np.int8(3), np.int64(-4), np.uint16(9), np.array(5)),
    *(np.s_[:], np.s_[3:8], np.s_[:-3], np.s_[-5:], np.s_[::7], np.s_[2:45:9], np.s_[-40:-2:3]),
    *(np.s_[::-1], np.s_[40:3:-6], np.s_[::-7], np.s_[-3::-1], np.s_[:20:-1], np.s_[5:5:-1]),
    *(np.s_[5:5], np.s_[9:2], np.s_[60:], np.s_[:999], np.s_[-999:4], np.s_[999:0:-1]),
    *([], [3], [7, 3, 3, 49, 0, 7], [-1, 0, -50], list(range(ROWS))[::-1], range(4, 9)),
    *(np.array([2, 1], "u8"), np.array([-2, 1], "i1"), np.zeros(0, int), np.zeros(0, "u1")),
    *(np.arange(ROWS) % 3 == 0, np.ones(ROWS, bool), np.zeros(ROWS, bool), [True, False] * 25),
    *(np.s_[...], (), (...,), (7, ...), (..., slice(2, 4)), np.s_[[4, 2], ...]),
]
FURTHER_KEYS = [
    *(np.s_[:, 1], np.s_[:, -1, 2], np.s_[5, 2], np.s_[5, 2, 1], np.s_[-1, ..., 0], np.s_[..., 1]),
    *(np.s_[..., 0, 1], np.s_[3:9, ..., 1], np.s_[:, 1:3], np.s_[::-2, 3:, ::2], np.s_[4, :, 1]),
    *(np.s_[:, ::-1], np.s_[2:5, 3:0:-2, ::-1], np.s_[7, ::-1], np.s_[:, 9:], np.s_[:, 2:1]),
    *(np.s_[[7, 3], 1], np.s_[[7, 3], 1:3], np.s_[[7, 3], :, 1], np.s_[[7, 3, 7], ..., -1]),
    *(np.s_[[7, 3], ::-1, 1], np.s_[[], 1], np.s_[:, [2, 0]], np.s_[:, :, [2, 0, 0]]),
    *(np.s_[..., [2, 0]], np.s_[:, 1, [2, 0]], np.s_[::-1, [2, 0], 1], np.s_[5, [2, 0]]),
    *(np.s_[:, [True, False, True, False]], np.s_[:, np.array([], int)], np.s_[:, None]),
    *(np.s_[np.arange(ROWS) % 3 == 0, 1], np.s_[np.arange(ROWS) > 47, :, ::2]),
]
SEVERAL_LISTS = [
    *(np.s_[[1, 2], [0, 1]], np.s_[[1, 2], [0, 1], [2, 2]], np.s_[[1, 2], :, [0, 1]]),
    *(np.s_[np.arange(ROWS) < 2, [0, 1]], np.s_[5, :, [0, 2]], np.s_[[1, 2], ..., [0, 2]]),
    np.s_[[4, 5], [[0], [1]]],
]


def label(key):
    """A key as the short name of a test."""
    return " ".join(repr(key).split())[:50]


@pytest.fixture(scope="module")
def file():
    """A file with three more rows than are committed, in several chunks."""
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        for name, array in {"cube": CUBE, "head/vector": VECTOR, "steps": WHOLE}.items():
            more = np.concatenate([array, array[:3]])
            file.create_dataset(name, data=more, chunks=(8, *array.shape[1:]))
        file["steps"].attrs.update(attributes_for(WHOLE.dtype))
        utf8 = [text.encode() for text in [*TEXT, "x", "y", "z"]]
        encoded = np.array(utf8, h5py.string_dtype("utf-8", 16))
        file.create_dataset("text", data=encoded, chunks=(8,))
        file.create_dataset("words", data=np.array([[b"a", b"bb"]] * ROWS, "S2"), chunks=(8, 2))
        file.create_dataset("none", (ROWS, 0), "f4", maxshape=(None, None), chunks=(8, 1))
        file.create_dataset("flags", data=np.arange(ROWS) % 2 == 0, chunks=(8,))
        yield file


@pytest.fixture
def cube(file):
    """An output with rows of shape `(4, 3)`."""
    return output_of(file, "cube", ROWS)


@pytest.fixture
def vector(file):
    """An output with one number per row."""
    return output_of(file, "head/vector", ROWS)


@pytest.fixture
def steps(file):
    """An output of floats that are stored as whole numbers, some of them NaN."""
    return output_of(file, "steps", ROWS)


@pytest.fixture
def text(file):
    """An output of strings."""
    return output_of(file, "text", ROWS)


@pytest.mark.parametrize("key", ROW_KEYS, ids=label)
def test_rows_as_in_numpy(cube, vector, text, steps, key):
    """Whatever chooses rows gives what NumPy gives on the whole array."""
    np.testing.assert_array_equal(cube[key], CUBE[key], strict=True)
    np.testing.assert_array_equal(vector[key], VECTOR[key], strict=True)
    np.testing.assert_array_equal(text[key], TEXT[key], strict=True)
    np.testing.assert_array_equal(steps[key], STEPS[key], strict=True)


@pytest.mark.parametrize("key", FURTHER_KEYS, ids=label)
def test_further_axes_as_in_numpy(cube, steps, key):
    """Whatever chooses from the further axes gives what NumPy gives on the whole array."""
    np.testing.assert_array_equal(cube[key], CUBE[key], strict=True)
    np.testing.assert_array_equal(steps[key], STEPS[key], strict=True)


@pytest.mark.parametrize("key", SEVERAL_LISTS, ids=label)
def test_several_lists_as_in_numpy(cube, steps, key):
    """Lists for several axes go together as in NumPy: they choose points, not a grid."""
    np.testing.assert_array_equal(cube[key], CUBE[key], strict=True)
    np.testing.assert_array_equal(steps[key], STEPS[key], strict=True)


@pytest.mark.parametrize("seed", range(60))
def test_random_keys_as_in_numpy(cube, seed):
    """Any rows together with slices and ints of further axes are as in NumPy."""
    rng = np.random.default_rng(seed)

    def bound():
        return None if rng.random() < 0.3 else int(rng.integers(-60, 60))

    rows = (
        int(rng.integers(-ROWS, ROWS)),
        slice(bound(), bound(), int(rng.choice([-9, -2, -1, 1, 2, 9]))),
        rng.integers(-ROWS, ROWS, size=rng.integers(0, 80)),
        rng.random(ROWS) < rng.random(),
    )[seed % 4]
    rest = [slice(bound(), bound(), int(rng.choice([-2, -1, 1, 2]))), int(rng.integers(-3, 3))]
    key = (rows, *rest[: rng.integers(0, 3)])
    np.testing.assert_array_equal(cube[key], CUBE[key], strict=True)


@pytest.mark.parametrize(
    "key",
    [
        *(ROWS, -ROWS - 1, [0, ROWS], [-ROWS - 1], np.uint64(2**63), [0, 2**62], 1.5, "x"),
        *([1.0, 2.0], [True], np.ones(ROWS + 3, bool), np.zeros((2, 2), int), None),
        *((0, 4), (slice(None), 4), (slice(None), -5), ([0], 4), (..., 3), (0, 0, 3)),
        *((0, 0, 0, 0), (slice(None), 0, 0, 0), ([0], 0, 0, 0), (..., 0, 0, 0, 0)),
        *((slice(None), [4]), (0, [0, -5]), (..., ...), ([0], "x"), (slice(None), 1.5)),
    ],
    ids=label,
)
def test_keys_that_do_not_exist(cube, key):
    """What NumPy refuses, and an index of rows that is not one-dimensional, is an IndexError."""
    with pytest.raises(IndexError):
        cube[key]


@pytest.mark.parametrize("key", [(0, 0), (slice(None), 0), ([0], 0), (..., 0, 0)], ids=label)
def test_too_many_axes_of_a_vector(vector, key):
    """One number per row has no second axis to choose from."""
    with pytest.raises(IndexError):
        vector[key]


def test_row_range_is_named(cube):
    """The error for a row that is not committed says which rows there are."""
    with pytest.raises(IndexError, match=r"from -50 to 49.*from 1 to 51"):
        cube[[1, 51]]
    with pytest.raises(IndexError, match=r"each of the 50 rows.*53 entries"):
        cube[np.ones(53, bool)]


def test_step_of_zero(cube):
    """A slice that never advances is a ValueError, as for every sequence."""
    with pytest.raises(ValueError, match="zero"):
        cube[::0]


def test_scalars_keep_their_type(cube, vector, text, steps):
    """One number is a NumPy scalar and one string a `str`, as from an array."""
    assert type(cube[3, 1, 2]) is np.int32
    assert type(vector[3]) is type(steps[3, 1, 2]) is np.float32
    assert isinstance(text[3], str)


def test_attributes(cube, vector, text, steps):
    """Name, shape, dtype, rank and size are those of the array that indexing returns."""
    for output, array, name in [
        (cube, CUBE, "cube"),
        (vector, VECTOR, "head/vector"),
        (text, TEXT, "text"),
        (steps, STEPS, "steps"),
    ]:
        assert output.name == name
        assert output.shape == array.shape
        assert output.dtype == array.dtype
        assert output.ndim == array.ndim
        assert output.nbytes == array.nbytes
        assert len(output) == ROWS


def test_iteration(cube, text):
    """Iteration yields committed rows in order and then ends."""
    np.testing.assert_array_equal(np.stack(list(cube)), CUBE, strict=True)
    assert list(text) == TEXT.tolist()
    assert [isinstance(value, str) for value in text] == [True] * ROWS


def test_membership_of_a_value(vector):
    """`in` looks at the rows, as for an array of one axis."""
    assert VECTOR[20] in vector
    assert 7.0 not in vector


@pytest.mark.parametrize("dtype", [None, "int32", "float64", object])
def test_as_an_array(cube, steps, dtype):
    """`numpy.asarray` reads all committed rows, in the dtype asked for."""
    expected = CUBE if dtype is None else CUBE.astype(dtype)
    np.testing.assert_array_equal(np.asarray(cube, dtype=dtype), expected, strict=True)
    np.testing.assert_array_equal(np.asarray(steps), STEPS, strict=True)


def test_numpy_functions(cube, vector):
    """NumPy's functions take an output for an array."""
    assert np.argmax(vector) == ROWS - 1
    assert np.mean(cube) == CUBE.mean()
    np.testing.assert_array_equal(np.concatenate([vector, vector]), np.concatenate([VECTOR] * 2))


def test_operators(cube, vector, text, steps):
    """Operators compute with the rows, in either order and with other outputs."""
    np.testing.assert_array_equal(vector * 2 + 1, VECTOR * 2 + 1, strict=True)
    np.testing.assert_array_equal(1 - vector, 1 - VECTOR, strict=True)
    np.testing.assert_array_equal(cube == CUBE, np.ones(CUBE.shape, bool), strict=True)
    np.testing.assert_array_equal(CUBE[:, 0, 0] < vector, CUBE[:, 0, 0] < VECTOR, strict=True)
    np.testing.assert_array_equal(vector + vector, VECTOR * 2, strict=True)
    np.testing.assert_array_equal(steps * 2, STEPS * 2, strict=True)
    np.testing.assert_array_equal(-cube, -CUBE, strict=True)
    np.testing.assert_array_equal(text == "größe 3", TEXT == "größe 3", strict=True)
    np.testing.assert_array_equal(np.add.reduce(cube, axis=1), CUBE.sum(axis=1), strict=True)


def test_is_read_only(vector):
    """Writing into an output is an error, and changes nothing."""
    output = vector
    with pytest.raises(TypeError):
        output += 1
    with pytest.raises(TypeError):
        np.negative(VECTOR, out=vector)
    with pytest.raises(TypeError):
        vector[0] = 1
    np.testing.assert_array_equal(vector[:], VECTOR)


def test_no_array_without_a_copy(cube):
    """A file can't be shared as memory, and asking for it is an error."""
    with pytest.raises(ValueError, match="makes a copy"):
        cube.__array__(copy=False)  # as `numpy.asarray` of NumPy 2 calls it
    np.testing.assert_array_equal(cube.__array__(copy=True), CUBE)


def test_writing_into_a_result_changes_nothing(cube, steps):
    """Arrays that were read belong to the caller."""
    for key in ([3, 3], slice(None, None, -1), 3, slice(2, 5)):
        cube[key][...] = steps[key][...] = -1
    np.testing.assert_array_equal(cube[:], CUBE)
    np.testing.assert_array_equal(steps[:], STEPS)


def test_other_dtypes(file):
    """Booleans, strings of higher rank and rows of width zero come back as what they are."""
    flags = output_of(file, "flags", ROWS)
    np.testing.assert_array_equal(flags[[2, 1]], np.array([True, False]), strict=True)
    words = output_of(file, "words", 3)
    np.testing.assert_array_equal(words[1:], np.array([["a", "bb"]] * 2), strict=True)
    assert words[0, 1] == "bb"
    none = output_of(file, "none", ROWS)
    assert none[:].shape == none.shape == (ROWS, 0)
    assert none[[4, 4, 1]].shape == (3, 0)
    assert none[-1].shape == (0,)
    assert len(list(none)) == ROWS


@pytest.mark.parametrize("key", [np.s_[:], np.s_[::-1], [], np.s_[5:], np.zeros(0, bool), ...])
def test_no_rows(file, key):
    """An output without committed rows gives empty arrays of the right rank."""
    output = output_of(file, "cube", 0)
    np.testing.assert_array_equal(output[key], CUBE[:0], strict=True)
    assert (list(output), len(output), output.shape) == ([], 0, (0, 4, 3))
    with pytest.raises(IndexError):
        output[0]


def test_repr(cube, text, steps):
    """The representation says what it is, without reading it."""
    assert repr(cube) == "<DenseOutput 'cube': shape (50, 4, 3), int32>"
    assert repr(steps) == "<DenseOutput 'steps': shape (50, 4, 3), float32>"
    assert repr(text) == "<DenseOutput 'text': shape (50,), <U16>"
