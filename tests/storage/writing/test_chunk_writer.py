import h5py
import hdf5plugin
import numpy as np
import pytest

from kerasext.storage.writing.chunk_writer import ChunkWriter

CHUNK = 8


@pytest.fixture
def file():
    """An HDF5 file in memory."""
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        yield file


def make_dataset(file, row_shape=(3,), dtype="float32", chunk=CHUNK):
    """An empty dataset as the writer makes it."""
    return file.create_dataset(
        "x",
        (0, *row_shape),
        dtype,
        maxshape=(None, *(length or None for length in row_shape)),
        chunks=(chunk, *(max(length, 1) for length in row_shape)),
    )


def make_rows(rows, row_shape=(3,), dtype="float32"):
    """Rows that all differ."""
    size = rows * int(np.prod(row_shape))
    return np.arange(1, size + 1).reshape(rows, *row_shape).astype(dtype)


def split(array, sizes):
    """The array in consecutive pieces of these sizes."""
    return np.split(array, np.cumsum(sizes)[:-1])


@pytest.mark.parametrize(
    "sizes",
    [
        *([0], [1], [CHUNK - 1], [CHUNK], [CHUNK + 1], [5 * CHUNK], [5 * CHUNK + 3]),
        *([0, 0], [3, 0, 5, 0, 1], [1] * 20, [CHUNK] * 3, [CHUNK - 1] * 9, [CHUNK + 1] * 9),
        *([1, 3 * CHUNK], [CHUNK - 1, 1, CHUNK], [CHUNK, 1, CHUNK - 1, 1], [3, 4 * CHUNK + 5, 2]),
    ],
    ids=str,
)
def test_rows_of_any_step_size(file, sizes):
    """Whatever the sizes of the steps, the dataset is their concatenation."""
    array = make_rows(sum(sizes))
    dataset = make_dataset(file)
    column = ChunkWriter(dataset, 0)
    for piece in split(array, sizes):
        column.append(piece)
    column.commit(len(array))
    np.testing.assert_array_equal(dataset[()], array, strict=True)


@pytest.mark.parametrize("seed", range(20))
def test_random_steps_and_commits(file, seed):
    """However rows are cut into steps, commits and writers, the dataset is their concatenation."""
    rng = np.random.default_rng(seed)
    dataset = make_dataset(file, chunk=int(rng.integers(1, 12)))
    sizes = rng.choice([0, 1, 2, 7, 8, 9, 30], size=40)
    array = make_rows(int(sizes.sum()))
    column, rows = ChunkWriter(dataset, 0), 0
    for piece in split(array, sizes):
        column.append(piece)
        rows += len(piece)
        if rng.random() < 0.4:
            column.commit(rows)
            np.testing.assert_array_equal(dataset[()], array[:rows])
            if rng.random() < 0.5:
                column = ChunkWriter(dataset, rows)
    column.commit(rows)
    np.testing.assert_array_equal(dataset[()], array, strict=True)


@pytest.mark.parametrize("row_shape", [(), (1,), (2, 3), (2, 0), (0,), (1, 1, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["?", "i8", "f2", "f4", ">f4", "c16", "S5"])
def test_rows_of_any_shape_and_dtype(file, row_shape, dtype):
    """Rows of any shape and dtype come back as they were."""
    array = make_rows(2 * CHUNK + 3, row_shape, dtype)
    dataset = make_dataset(file, row_shape, dtype)
    column = ChunkWriter(dataset, 0)
    for piece in split(array, [3, CHUNK, CHUNK]):
        column.append(piece)
    column.commit(len(array))
    np.testing.assert_array_equal(dataset[()], array, strict=True)


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[::-1],
        lambda array: array[:, ::2],
        np.asfortranarray,
        lambda array: np.broadcast_to(array[:1], array.shape),
    ],
    ids=["reversed", "strided", "Fortran", "broadcast"],
)
def test_arrays_of_any_layout(file, view):
    """Arrays that are not contiguous are stored by value."""
    array = view(make_rows(3 * CHUNK, (4,)))
    dataset = make_dataset(file, array.shape[1:])
    column = ChunkWriter(dataset, 0)
    column.append(array)
    column.commit(len(array))
    np.testing.assert_array_equal(dataset[()], array)


def test_arrays_may_be_used_again(file):
    """Rows are kept as they were on `append`, whatever the caller does to the array later."""
    array = make_rows(CHUNK - 1)
    dataset = make_dataset(file)
    column = ChunkWriter(dataset, 0)
    column.append(array)
    expected, array[:] = array.copy(), 0
    column.commit(len(array))
    np.testing.assert_array_equal(dataset[()], expected)


@pytest.mark.parametrize("kept", [1, CHUNK - 1, CHUNK, CHUNK + 1])
@pytest.mark.parametrize("dropped", [1, CHUNK, 2 * CHUNK + 3])
def test_rows_beyond_the_commit(file, kept, dropped):
    """Rows of a step that not every output has are dropped, and rows before it stay."""
    array = make_rows(kept + dropped)
    dataset = make_dataset(file)
    column = ChunkWriter(dataset, 0)
    column.append(array[:kept])
    column.append(array[kept:])
    column.trim(kept)
    column.commit(kept)
    np.testing.assert_array_equal(dataset[()], array[:kept], strict=True)


@pytest.mark.parametrize("kept", [0, 1, CHUNK, CHUNK + 3])
def test_overwrites_what_was_not_committed(file, kept):
    """A new writer goes on after the committed rows and overwrites what follows them."""
    array = make_rows(40)
    dataset = make_dataset(file)
    first = ChunkWriter(dataset, 0)
    first.append(np.concatenate([array[:kept], np.zeros((20, 3), "float32")]))
    first.commit(kept + 20)
    second = ChunkWriter(dataset, kept)
    second.append(array[kept:])
    second.commit(len(array))
    np.testing.assert_array_equal(dataset[()], array, strict=True)


@pytest.mark.parametrize("kept", [1, CHUNK, CHUNK + 3])
def test_a_chunk_that_is_cut_after_it_was_compressed(file, kept):
    """A chunk that came to be full in a step that was dropped is cut and readable."""
    array = make_rows(4 * CHUNK)
    dataset = file.create_dataset(
        "x", (0, 3), "f4", maxshape=(None, 3), chunks=(CHUNK, 3), compression="gzip"
    )
    column = ChunkWriter(dataset, 0)
    column.append(array[:kept])
    column.append(array[kept : kept + CHUNK])
    column.trim(kept)
    column.commit(kept)
    np.testing.assert_array_equal(dataset[()], array[:kept], strict=True)


def zstd_dataset(file):
    """A dataset whose filter is run by HDF5."""
    return file.create_dataset(
        "x", (0, 3), "f4", maxshape=(None, 3), chunks=(CHUNK, 3), **hdf5plugin.Zstd()
    )


def raw_chunks(file):
    """Of each chunk, whether it is stored uncompressed."""
    dataset = file["x"]
    infos = [dataset.id.get_chunk_info(number) for number in range(dataset.id.get_num_chunks())]
    return [bool(info.filter_mask) for info in sorted(infos, key=lambda info: info.chunk_offset)]


@pytest.mark.parametrize("first", [0, 3, CHUNK, CHUNK + 3])
def test_filters_that_hdf5_runs(path, first):
    """Full chunks are compressed, and the last one, unless it was committed partly filled."""
    array = make_rows(2 * CHUNK + 5)
    with h5py.File(path, "w") as file:
        column = ChunkWriter(zstd_dataset(file), 0)
        column.append(array[:first])
        column.commit(first)
        column.append(array[first:])
        column.commit(len(array), last=True)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"], array, strict=True)
        assert raw_chunks(file) == [first == 3, first == CHUNK + 3, False]


@pytest.mark.parametrize("kept", [0, 3, CHUNK, CHUNK + 3])
def test_chunks_that_a_killed_writer_has_left(path, kept):
    """They are overwritten unread, because a kill may have torn them."""
    array = make_rows(2 * CHUNK + 5)
    with h5py.File(path, "w") as file:
        dataset = zstd_dataset(file)
        column = ChunkWriter(dataset, 0)
        column.append(array[:kept])
        column.commit(kept, last=True)
        dataset.resize(4 * CHUNK, axis=0)
        for row in range(-(-kept // CHUNK) * CHUNK, 4 * CHUNK, CHUNK):
            dataset.id.write_direct_chunk((row, 0), b"half of a chunk")
    with h5py.File(path, "r+") as file:
        column = ChunkWriter(file["x"], kept)
        column.append(array[kept:])
        column.commit(len(array), last=True)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"][: len(array)], array, strict=True)
        assert raw_chunks(file) == [False, False, True, False]


def test_more_rows_for_a_last_chunk_that_was_compressed(path):
    """The last chunk of a file can be compressed again with more rows."""
    array = make_rows(CHUNK - 1)
    for start, stop in ((0, 3), (3, CHUNK - 1)):
        with h5py.File(path, "a") as file:
            column = ChunkWriter(file["x"] if start else zstd_dataset(file), start)
            column.append(array[start:stop])
            column.commit(stop, last=True)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"], array, strict=True)
        assert raw_chunks(file) == [False]
