import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedOutput, RaggedRows

ROWS = 60
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(0, 5, ROWS)
LENGTHS[[0, 7, -1]] = 0


def rows_of(shapes, dtype="f4"):
    """Rows of these shapes, whose values all differ."""
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    values = np.arange(1, ends[-1] + 1)
    values = np.array([f"ö{n}" for n in values], dtype) if dtype == "U64" else values.astype(dtype)
    parts = np.split(values, ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


CONTENT = {
    "tokens": rows_of([(n,) for n in LENGTHS], "i4"),
    "boxes": rows_of([(n, 4) for n in LENGTHS]),
    "head/mask": rows_of([(1 + n, 6 - n, 2) for n in LENGTHS], "f8"),
    "text": rows_of([(n, n % 3) for n in LENGTHS], "U64"),
    "empty": rows_of([(0, n) for n in LENGTHS]),
}
KEYS = [
    *(0, 7, -1, ROWS - 1, -ROWS, np.int8(3), np.uint64(4), np.array(5)),
    *(np.s_[:], np.s_[3:9], np.s_[9:3], np.s_[-5:], np.s_[:999], np.s_[60:], np.s_[7:8]),
    *(np.s_[::2], np.s_[::-1], np.s_[50:3:-7], np.s_[5::60]),
    *([], [3], [40, 3, 3, 59, 0], [-1, 0, -60], range(4, 9), np.array([2, 1], "u8")),
    *(np.arange(ROWS) % 3 == 0, np.zeros(ROWS, bool), [True, False] * 30),
]


def as_rows(arrays):
    """A list of arrays as a writer takes it."""
    values = np.concatenate([array.reshape(-1) for array in arrays])
    return RaggedRows(values, np.array([array.shape for array in arrays], np.int64))


def write(path, content=CONTENT, steps=(10, 1, 0, 30, 19), **options):
    """Writes a file in steps of these sizes."""
    writer = PredictionFileWriter(path, ragged=True, **options)
    first = 0
    for rows in steps:
        step = {name: as_rows(arrays)[first : first + rows] for name, arrays in content.items()}
        writer.append(step)
        writer.commit()
        first += rows
    writer.finish()
    return path


@pytest.fixture(scope="module", params=[10_000, 1], ids=["one chunk", "many chunks"])
def predictions(request, tmp_path_factory):
    """An open file, whose chunks hold everything or a few rows."""
    path = tmp_path_factory.mktemp("ragged") / "p.h5"
    patch = pytest.MonkeyPatch()
    if request.param == 1:
        patch.setattr("kerasext.storage.writing.empty_file.rows_per_chunk", lambda *_: 8)
    with patch.context():
        write(path)
    patch.undo()
    with PredictionFile(path) as predictions:
        yield predictions


def assert_rows(found, expected):
    """The same arrays, or the same list of arrays."""
    if isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
    else:
        found, expected = [found], [expected]
    for row, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(row, right, strict=True)


def choose(arrays, key):
    """What a key means, said by NumPy and lists."""
    index = np.arange(ROWS)[np.asarray(key, int) if isinstance(key, list) and not key else key]
    return arrays[int(index)] if index.ndim == 0 else [arrays[i] for i in index]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", CONTENT)
def test_rows_are_those_that_were_written(name, key, predictions):
    """An int gives an array of the row's shape; a slice, list or mask a list of them in order."""
    assert_rows(predictions[name][key], choose(CONTENT[name], key))


@pytest.mark.parametrize(("start", "stop"), [(0, ROWS), (5, 31), (9, 9), (ROWS, ROWS)])
@pytest.mark.parametrize("name", CONTENT)
def test_flat_rows(name, start, stop, predictions):
    """Rows that follow each other are read as they are stored, none of them too."""
    rows = predictions[name].flat(start, stop)
    assert rows.shape == (stop - start, *predictions[name].shape[1:])
    assert rows.dtype == predictions[name].dtype
    assert_rows(list(rows), CONTENT[name][start:stop])


@pytest.mark.parametrize("name", CONTENT)
def test_what_it_says_of_itself(name, predictions):
    """Length, dtype and shape, with `None` where rows differ."""
    output, arrays = predictions[name], CONTENT[name]
    assert isinstance(output, RaggedOutput)
    assert (len(output), output.dtype) == (ROWS, arrays[0].dtype)
    assert output.shape == (ROWS, *[None] * arrays[0].ndim)
    assert output.ndim == arrays[0].ndim + 1
    assert repr(output) == f"<RaggedOutput {name!r}: shape {output.shape}, {output.dtype}>"
    assert f"{name:<9}  {output.dtype!s:<8} {output.shape}" in repr(predictions)


@pytest.mark.parametrize("name", CONTENT)
def test_iteration(name, predictions):
    """Iterating yields each row once, in order."""
    assert_rows(list(predictions[name]), CONTENT[name])


@pytest.mark.parametrize("rows", [1, 7, ROWS, 100])
def test_batches(rows, predictions):
    """`iter_batches` yields lists of rows beside each other's."""
    found = {name: [] for name in CONTENT}
    for batch in predictions.iter_batches(rows):
        for name, arrays in batch.items():
            assert len(arrays) <= rows
            found[name] += arrays
    for name, arrays in found.items():
        assert_rows(arrays, CONTENT[name])


@pytest.mark.parametrize("key", [np.s_[:], np.s_[3:9], [40, 3, 3], LENGTHS > 2, []])
@pytest.mark.parametrize("name", CONTENT)
def test_padded(name, key, predictions):
    """Rows fill the beginning of each axis, and zeros, or empty strings, the rest."""
    arrays = choose(CONTENT[name], key)
    padded = predictions[name].padded(key)
    longest = np.max([a.shape for a in arrays], axis=0) if arrays else [0] * CONTENT[name][0].ndim
    assert padded.shape == (len(arrays), *longest)
    assert padded.dtype == CONTENT[name][0].dtype
    filled = np.zeros(padded.shape, bool)
    for place, array in enumerate(arrays):
        part = (place, *map(slice, array.shape))
        np.testing.assert_array_equal(padded[part], array)
        filled[part] = True
    assert (padded[~filled] == np.zeros((), padded.dtype)).all()


@pytest.mark.parametrize(
    ("name", "value"), [("tokens", -1), ("boxes", np.nan), ("boxes", 0.1), ("text", "[PAD]")]
)
def test_what_to_pad_with(name, value, predictions):
    """Any value of the dtype stands where there is none of a row."""
    padded = predictions[name].padded([1, 7], value=value)
    row = CONTENT[name][1]
    expected = np.full(padded.shape, value, padded.dtype)
    expected[(0, *map(slice, row.shape))] = row
    np.testing.assert_array_equal(padded, expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokens", 0.5), ("tokens", np.nan), ("tokens", 2**40), ("text", "x" * 65), ("boxes", "x")],
)
def test_what_can_not_be_padded_with(name, value, predictions):
    """A value that the dtype does not have is refused instead of changed."""
    with pytest.raises(ValueError, match=r"`value` into their dtype.*Received: shape="):
        predictions[name].padded(value=value)


def test_one_row_needs_no_padding(predictions):
    """An int is refused with what to write instead."""
    with pytest.raises(IndexError, match=r"one row is `output\[3\]`"):
        predictions["tokens"].padded(3)


def test_padded_rows_that_no_memory_holds(path):
    """One long row and one wide one may make an array that is too large, which is said."""
    side = 2_000_000
    rows = [np.zeros((side, 1), "i1"), np.zeros((1, side), "i1")] * 40
    write(path, {"x": rows}, steps=[len(rows)])
    with PredictionFile(path) as predictions:
        with pytest.raises(ValueError, match=r"fit into memory.*choose fewer rows"):
            predictions["x"].padded()
        assert predictions["x"].padded([0, 2]).shape == (2, side, 1)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (60, "Rows must be from -60 to 59"),
        ([0, -61], "Rows must be from -60 to 59"),
        (np.ones(3, bool), "one entry for each of the 60 rows"),
        ((0, 1), "Only rows can be chosen"),
        (np.s_[0, :], "Only rows can be chosen"),
        (..., "chosen by"),
        ([[1], [2]], "chosen by"),
        (1.5, "chosen by"),
        (None, "chosen by"),
    ],
)
def test_keys_that_choose_no_rows(key, message, predictions):
    """What is no row, or more than rows, is an IndexError."""
    with pytest.raises(IndexError, match=message):
        predictions["tokens"][key]


def test_it_is_no_array(predictions):
    """NumPy is told of `padded` instead of making an array of arrays."""
    with pytest.raises(TypeError, match="use `padded`"):
        np.asarray(predictions["tokens"])


def test_rows_of_a_list_are_each_their_own(predictions):
    """A row that is chosen twice may be changed once."""
    first, second = predictions["boxes"][[1, 1]]
    first += 1
    np.testing.assert_array_equal(second, CONTENT["boxes"][1])


@pytest.mark.parametrize(("key", "most"), [(np.s_[5:55], 3), (np.arange(0, ROWS, 2), 4)])
def test_reads_are_by_runs(key, most, path, monkeypatch):
    """Rows that stand together are read together, however many they are."""
    with PredictionFile(write(path)) as predictions:
        reads = []
        read = predictions._source.read
        monkeypatch.setattr(predictions._source, "read", lambda *at: reads.append(at) or read(*at))
        assert_rows(predictions["boxes"][key], choose(CONTENT["boxes"], key))
    assert len(reads) <= most, reads


def test_a_closed_file(path):
    """After `close` reading says so."""
    with PredictionFile(write(path)) as predictions:
        output = predictions["tokens"]
    with pytest.raises(ValueError, match="was closed"):
        output[0]


def test_a_group_that_is_no_ragged_output(path):
    """Outputs of a dict that are called like ours are plain outputs: the attribute decides."""
    step = {
        "a/values": np.arange(3.0),
        "a/row_splits": np.arange(3),
        "a/row_shapes": np.ones((3, 2)),
    }
    writer = PredictionFileWriter(path)
    writer.append(step)
    writer.finish()
    with PredictionFile(path) as predictions:
        assert sorted(predictions) == sorted(step)
        for name, array in step.items():
            np.testing.assert_array_equal(predictions[name], array)


def test_outputs_called_like_ours_may_be_ragged(path):
    """Each of them is then a group of its own."""
    content = {"a/values": CONTENT["tokens"], "a/row_splits": CONTENT["boxes"]}
    with PredictionFile(write(path, content)) as predictions:
        for name, arrays in content.items():
            assert_rows(predictions[name][:], arrays)
    with h5py.File(path) as file:
        assert set(file["a/values"]) == {"values", "row_splits"}
