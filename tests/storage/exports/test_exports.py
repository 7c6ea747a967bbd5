import csv
import itertools
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows
from kerasext.storage.reading.file_source import FileSource

ROWS = 60
NAMES = ["cat", "dog", "größe"]
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(0, 5, ROWS)
LENGTHS[[0, 7, -1]] = 0
LABELS = RNG.integers(-1, 3, ROWS).astype("i4")
LABELS[:4] = [-1, 0, 1, 2]


def ragged(shapes, dtype="f4"):
    """Rows of these shapes, whose values all differ."""
    shapes = np.array(shapes, np.int64)
    numbers = np.arange(np.prod(shapes, axis=1).sum())
    values = np.array([f"ö{n}" for n in numbers], "U64") if dtype == "U64" else numbers
    return RaggedRows(values.astype(dtype), shapes)


NUMBERS = {
    **{f"types/{dtype}": RNG.integers(0, 100, ROWS).astype(dtype) for dtype in ("b1", "i1", "i8")},
    "types/u8": np.arange(2**64 - ROWS, 2**64, dtype="u8"),
    **{f"types/f{size}": RNG.normal(size=ROWS).astype(f"f{size}") for size in (2, 4, 8)},
    "types/big_endian": RNG.normal(size=ROWS).astype(">f8"),
    "types/text": np.array([f"größe {n}" if n % 3 else "" for n in range(ROWS)], "U64"),
}
DENSE = {
    **NUMBERS,
    "labels": LABELS,
    "probabilities": RNG.random((ROWS, 3), "f4"),
    "confidence": np.where(LABELS < 0, np.nan, RNG.random(ROWS)).astype("f4"),
    "embedding": RNG.normal(size=(ROWS, 2)).astype("f2"),
    "mask": RNG.integers(0, 2, (ROWS, 2, 3)).astype("b1"),
    "nothing": np.zeros((ROWS, 2, 0, 3), "f4"),
    "words": np.array([[f"a{n}", "ü"] for n in range(ROWS)], "U64"),
}
RAGGED = {
    "tokens": ragged([(n,) for n in LENGTHS], "i4"),
    "head/boxes": ragged([(n, 4) for n in LENGTHS]),
    "head/images": ragged([(1 + n, 6 - n, 2) for n in LENGTHS], "f8"),
    "head/text": ragged([(n, n % 3) for n in LENGTHS], "U64"),
}


def write(path, content, *, rows=ROWS, complete=True, **options):
    """Writes a file in steps of some rows."""
    is_ragged = [name for name in content if isinstance(content[name], RaggedRows)]
    writer = PredictionFileWriter(path, ragged=is_ragged, **options)
    for start in range(0, rows, 23):
        stop = min(start + 23, rows)
        writer.append({name: values[start:stop] for name, values in content.items()})
        writer.commit()
    if complete:
        writer.finish()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file_of_all_kinds(tmp_path_factory):
    """The path of a file with outputs of all kinds."""
    path = tmp_path_factory.mktemp("exports") / "predictions.h5"
    attributes = {"model_name": "net", "metadata": '{"data": "ü"}'}
    return write(path, {**DENSE, **RAGGED}, class_names=NAMES, attributes=attributes)


@pytest.fixture
def predictions(file_of_all_kinds):
    """That file, open."""
    with PredictionFile(file_of_all_kinds) as predictions:
        yield predictions


def opened(path, content, **options):
    """An open file that was just written."""
    return PredictionFile(write(path, content, **options))


def stored(path, name):
    """The rows of an output as plain h5py reads them: an array, or a list of arrays."""
    with h5py.File(path) as file:
        if isinstance(file[name], h5py.Dataset):
            values = file[name][()]
            return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        values, splits = file[name]["values"][()], file[name]["row_splits"][()]
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        rows = [values[start:stop] for start, stop in itertools.pairwise(splits)]
        if "row_shapes" in file[name]:
            shapes = file[name]["row_shapes"][()]
            rows = [row.reshape(shape) for row, shape in zip(rows, shapes, strict=True)]
        return rows


def as_lists(rows):
    """The same values as nested lists, as Arrow has them, with NaN in place of nothing else."""
    return rows.tolist() if isinstance(rows, np.ndarray) else [row.tolist() for row in rows]


def names_of(labels):
    """The names of labels, `None` where there is none."""
    return [None if label < 0 else NAMES[label] for label in labels]


def plain(values):
    """Nested lists of Python's numbers: tuples and NumPy's numbers come of some versions."""
    if isinstance(values, dict):
        return {name: plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return list(map(plain, values))
    return values.item() if isinstance(values, np.generic) else values


def same(found, expected):
    """Whether nested lists are the same, bit for bit but for the kind of NaN."""
    return repr(found) == repr(expected)


# pandas


def test_pandas_columns_of_one_number(predictions):
    """An output of one number or string a row is a column by its name, with its dtype."""
    pytest.importorskip("pandas")
    frame = predictions.to_pandas()
    assert len(frame) == ROWS
    for name in [*NUMBERS, "labels", "confidence"]:
        expected = stored(predictions.path, name)
        np.testing.assert_array_equal(frame[name].to_numpy(), expected)
        if expected.dtype.kind != "U":
            assert frame[name].dtype == expected.dtype.newbyteorder("=")


def test_pandas_columns_of_classes(predictions):
    """An output with classes is a column for each, by name; others of two axes count from 0."""
    pytest.importorskip("pandas")
    frame = predictions.to_pandas(outputs=["probabilities", "embedding", "words"])
    assert frame.columns.tolist() == [
        *("probabilities/cat", "probabilities/dog", "probabilities/größe"),
        *("embedding/0", "embedding/1", "words/0", "words/1"),
    ]
    for name, ends in [("probabilities", NAMES), ("embedding", range(2)), ("words", range(2))]:
        expected = stored(predictions.path, name)
        found = np.stack([frame[f"{name}/{end}"].to_numpy() for end in ends], axis=1)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["mask", "nothing", *RAGGED])
def test_pandas_columns_of_arrays(predictions, name):
    """Outputs of further axes, and of rows of different shapes, have an array in each row."""
    pytest.importorskip("pandas")
    frame = predictions.to_pandas(outputs=[name])
    assert frame.columns.tolist() == [name]
    for found, expected in zip(frame[name], stored(predictions.path, name), strict=True):
        is_text = expected.dtype.kind == "U"  # of the width stored, here of that needed
        np.testing.assert_array_equal(found, expected, strict=not is_text)


def test_pandas_names_of_labels(predictions):
    """Labels stay integers, and beside them is a categorical column of their names."""
    pandas = pytest.importorskip("pandas")
    frame = predictions.to_pandas(outputs=["labels"])
    assert frame.columns.tolist() == ["labels", "labels/name"]
    assert frame["labels"].dtype == np.int32
    assert isinstance(frame["labels/name"].dtype, pandas.CategoricalDtype)
    assert frame["labels/name"].cat.categories.tolist() == NAMES
    found = [None if pandas.isna(name) else name for name in frame["labels/name"]]
    assert found == names_of(stored(predictions.path, "labels"))


def test_pandas_complex(path):
    """Complex numbers stay what they are in pandas."""
    pytest.importorskip("pandas")
    values = RNG.normal(size=ROWS).astype("c8") * 1j
    with opened(path, {"spectrum": values}) as predictions:
        frame = predictions.to_pandas()
    np.testing.assert_array_equal(frame["spectrum"].to_numpy(), values, strict=True)


def test_classes_of_the_same_name(path):
    """Where classes share a name their columns count from 0, and the names are one category."""
    pytest.importorskip("pandas")
    content = {"probabilities": DENSE["probabilities"], "labels": LABELS}
    with opened(path, content, class_names=["cat", "dog", "cat"]) as predictions:
        frame = predictions.to_pandas()
    assert set(frame) == {*(f"probabilities/{n}" for n in range(3)), "labels", "labels/name"}
    assert frame["labels/name"].cat.categories.tolist() == ["cat", "dog"]
    expected = [[None, "cat", "dog", "cat"][label + 1] for label in LABELS]
    assert frame["labels/name"].astype(object).where(LABELS >= 0, None).tolist() == expected


def test_labels_of_heads(path):
    """Each head has the names of its own classes."""
    pytest.importorskip("pandas")
    content = {"a/labels": LABELS % 2, "b/labels": LABELS % 2, "c/labels": LABELS % 2}
    names = {"a": ["x", "y"], "b": ["u", "v"]}
    with opened(path, content, class_names=names) as predictions:
        frame = predictions.to_pandas()
    for head, (first, second) in names.items():
        expected = np.where(LABELS % 2, second, first)
        np.testing.assert_array_equal(frame[f"{head}/labels/name"].to_numpy(object), expected)
    assert "c/labels/name" not in frame


def test_several_labels_a_row(path):
    """Labels and confidence of each class have columns by class, if there are probabilities."""
    pytest.importorskip("pandas")
    values = RNG.random((ROWS, 3), "f4")
    content = {"labels": (values > 0.5).astype("i4"), "confidence": values, "probabilities": values}
    with opened(path, content, class_names=NAMES) as predictions:
        frame = predictions.to_pandas()
    expected = [f"{name}/{end}" for name in content for end in NAMES]
    assert sorted(frame.columns) == sorted(expected)


def test_prediction_sets(path, tmp_path):
    """Sets have a column for each class, by name, in data frames, CSV files and Arrow tables."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    sets = DENSE["probabilities"] > 0.3
    content = {"labels": LABELS, "prediction_set": sets, "set_size": sets.sum(1).astype("i4")}
    content["abstained"] = sets[:, 0]
    with opened(path, content, class_names=NAMES) as predictions:
        frame, table = predictions.to_pandas(), predictions.to_arrow()
        predictions.to_csv(tmp_path / "sets.csv")
        predictions.to_parquet(tmp_path / "sets.parquet")
    by_class = [f"prediction_set/{name}" for name in NAMES]
    np.testing.assert_array_equal(frame[by_class].to_numpy(), sets, strict=True)
    np.testing.assert_array_equal(frame["abstained"], sets[:, 0])
    read = pandas.read_csv(tmp_path / "sets.csv")
    np.testing.assert_array_equal(read[by_class].to_numpy(), sets)
    assert json.loads(table.field("prediction_set").metadata[b"class_names"]) == NAMES
    read = pandas.read_parquet(tmp_path / "sets.parquet")
    assert read["prediction_set"].map(list).tolist() == sets.tolist()


def test_labels_of_as_many_tokens_as_classes(path):
    """The labels of three tokens a row are no columns of three classes."""
    pytest.importorskip("pandas")
    content = {"labels": np.zeros((ROWS, 3), "i4"), "probabilities": np.zeros((ROWS, 3, 3))}
    with opened(path, content, class_names=NAMES) as predictions:
        frame = predictions.to_pandas()
    assert sorted(frame.columns) == ["labels/0", "labels/1", "labels/2", "probabilities"]


# Arrow and Parquet


def check_columns(path, found):
    """Compares lists by column, of Arrow or DuckDB, with what plain h5py reads."""
    assert set(found) == {*DENSE, *RAGGED, "labels/name"}
    for name in {*DENSE, *RAGGED}:
        assert same(plain(found[name]), as_lists(stored(path, name))), name
    assert found["labels/name"] == names_of(stored(path, "labels"))


@pytest.mark.parametrize("batch_bytes", [2**26, 10_000, 1])
def test_arrow_values(predictions, batch_bytes, monkeypatch):
    """A table of Arrow has the values of the file, however it is cut into batches."""
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("kerasext.storage.exports.arrow_table.BATCH_BYTES", batch_bytes)
    table = predictions.to_arrow()
    table.validate(full=True)
    check_columns(predictions.path, table.to_pydict())


def test_arrow_types(predictions):
    """Types are those of the file: lists of fixed size, lists, a dictionary of names."""
    pa = pytest.importorskip("pyarrow")
    types = {field.name: field.type for field in predictions.to_arrow().schema}
    floats = pa.float32()
    expected = {
        "types/b1": pa.bool_(),
        "types/i1": pa.int8(),
        "types/i8": pa.int64(),
        "types/u8": pa.uint64(),
        "types/f2": pa.float16(),
        "types/f4": floats,
        "types/f8": pa.float64(),
        "types/big_endian": pa.float64(),
        "types/text": pa.string(),
        "labels": pa.int32(),
        "labels/name": pa.dictionary(pa.int32(), pa.string()),
        "probabilities": pa.list_(floats, 3),
        "confidence": floats,
        "embedding": pa.list_(pa.float16(), 2),
        "mask": pa.list_(pa.list_(pa.bool_(), 3), 2),
        "nothing": pa.list_(pa.list_(pa.list_(floats, 3)), 2),
        "words": pa.list_(pa.string(), 2),
        "tokens": pa.list_(pa.int32()),
        "head/boxes": pa.list_(pa.list_(floats)),
        "head/images": pa.list_(pa.list_(pa.list_(pa.float64()))),
        "head/text": pa.list_(pa.list_(pa.string())),
    }
    assert types == expected


def test_arrow_metadata(predictions, tmp_path):
    """The schema says where the rows come from, in the Parquet file too."""
    pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    predictions.to_parquet(tmp_path / "p.parquet")
    for schema in (predictions.to_arrow().schema, parquet.read_schema(tmp_path / "p.parquet")):
        said = json.loads(schema.metadata[b"kerasext"])
        assert said["origin"] == predictions.origin
        assert said["metadata"] == {"data": "ü"}
        assert (said["rows"], said["complete"]) == (ROWS, True)
        names = schema.field("probabilities").metadata[b"class_names"]
        assert json.loads(names) == NAMES


@pytest.mark.parametrize("method", ["to_arrow", "to_parquet"])
@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_arrow_refuses_complex_numbers(path, tmp_path, method, dtype):
    """Arrow has no complex numbers: the error names the output and the way round."""
    pytest.importorskip("pyarrow")
    arguments = [tmp_path / "p.parquet"] if method == "to_parquet" else []
    content = {"spectrum": np.ones(ROWS, dtype), "labels": LABELS}
    with opened(path, content) as predictions:
        with pytest.raises(TypeError, match=r"'spectrum'; leave it out with `outputs`.*complex"):
            getattr(predictions, method)(*arguments)
        getattr(predictions, method)(*arguments, outputs=["labels"])


@pytest.mark.parametrize("row_group_bytes", [2**26, 10_000])
def test_parquet_in_duckdb(predictions, tmp_path, row_group_bytes):
    """DuckDB reads the values of the HDF5 file from the Parquet file."""
    pytest.importorskip("pyarrow")
    duckdb = pytest.importorskip("duckdb")
    target = tmp_path / "p.parquet"
    predictions.to_parquet(target, row_group_bytes=row_group_bytes)
    with duckdb.connect() as connection:
        cursor = connection.execute("SELECT * FROM read_parquet(?)", [str(target)])
        columns = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
    found = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
    check_columns(predictions.path, found)


def test_parquet_is_the_table(predictions, tmp_path):
    """A Parquet file is read as the table that `to_arrow` makes, with float16 as float32."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    predictions.to_parquet(tmp_path / "p.parquet", row_group_bytes=10_000)
    table = parquet.read_table(tmp_path / "p.parquet")
    expected = predictions.to_arrow()
    for found, field in zip(table.schema, expected.schema, strict=True):
        wider = {"types/f2": pa.float32(), "embedding": pa.list_(pa.float32(), 2)}
        assert found.name == field.name
        assert found.type.equals(wider.get(field.name, field.type))
    assert same(plain(table.to_pydict()), plain(expected.to_pydict()))


def test_parquet_memory(predictions, tmp_path, monkeypatch):
    """Row groups, and the reads for them, have no more bytes than was asked for."""
    parquet = pytest.importorskip("pyarrow.parquet")
    row_bytes = max(
        sum(np.asarray(predictions[name][row]).nbytes for name in predictions)
        for row in range(ROWS)
    )
    limit = 4 * row_bytes
    sizes = []
    read = FileSource.read

    def counting(file, name, key):
        values = read(file, name, key)
        sizes.append(values.nbytes)
        return values

    monkeypatch.setattr(FileSource, "read", counting)
    predictions.to_parquet(tmp_path / "p.parquet", row_group_bytes=limit)
    assert max(sizes) <= limit
    groups = parquet.ParquetFile(tmp_path / "p.parquet").metadata
    assert ROWS / 20 < groups.num_row_groups <= ROWS / 2
    assert groups.num_rows == ROWS


@pytest.mark.parametrize("most_bytes", [1, 500, 3000, 10**6])
@pytest.mark.parametrize("multiple", [1, 7, 100])
def test_blocks(predictions, most_bytes, multiple):
    """Blocks follow each other, and have no more bytes than asked for, or one multiple of rows."""
    exported = predictions._exported(None)
    blocks = list(exported.blocks(most_bytes, multiple=multiple))
    starts, stops = zip(*blocks, strict=True)
    assert starts == (0, *stops[:-1])
    assert stops[-1] == ROWS
    for start, stop in blocks:
        size = sum(exported.read(name, start, stop).nbytes for name in predictions)
        assert size <= most_bytes or stop - start <= multiple
        assert (stop - start) % multiple == 0 or stop == ROWS


@pytest.mark.parametrize("present", [None, b"precious"])
def test_parquet_after_an_error(predictions, tmp_path, monkeypatch, present):
    """After an error nothing is there, or what was there before, and no rest of it lies about."""
    pytest.importorskip("pyarrow")
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "p.parquet"
    if present:
        target.write_bytes(present)
    read = FileSource.read

    def fails(file, name, key):
        rows = key[0] if isinstance(key, tuple) else key
        if rows.start > ROWS // 2:
            assert len(list(folder.iterdir())) == 1 + bool(present)  # what was written so far
            raise KeyboardInterrupt
        return read(file, name, key)

    monkeypatch.setattr(FileSource, "read", fails)
    with pytest.raises(KeyboardInterrupt):
        predictions.to_parquet(target, row_group_bytes=1)
    found = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert found == ({"p.parquet": present} if present else {})


def test_parquet_replaces(predictions, tmp_path):
    """A file under the name is replaced, also where a link leads to it."""
    parquet = pytest.importorskip("pyarrow.parquet")
    target, link = tmp_path / "p.parquet", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    predictions.to_parquet(link)
    assert link.is_symlink()
    assert parquet.read_metadata(target).num_rows == ROWS


def test_parquet_paths_that_will_not_do(predictions, tmp_path):
    """A folder, a path in a folder that is missing, and the file itself are refused at once."""
    pytest.importorskip("pyarrow")
    before = predictions.path.read_bytes()
    for path, error in [
        (tmp_path, IsADirectoryError),
        (tmp_path / "no" / "p.parquet", FileNotFoundError),
        (predictions.path, ValueError),
    ]:
        with pytest.raises(error, match="Received: path="):
            predictions.to_parquet(path)
    with pytest.raises(ValueError, match="row_group_bytes=0"):
        predictions.to_parquet(tmp_path / "p.parquet", row_group_bytes=0)
    assert predictions.path.read_bytes() == before
    assert list(tmp_path.glob("*parquet*")) == []


FORMULAS = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\uff1d1"]


@pytest.mark.parametrize("raw_cells", [False, True])
def test_csv_without_formulas(path, tmp_path, raw_cells):
    """Text that a spreadsheet may take for a formula gets an apostrophe, numbers never do."""
    pytest.importorskip("pandas")
    texts = [*FORMULAS, "a=1", "", "'", "1-2", "a\r=1"]
    labels = np.arange(-1, len(texts) - 1).clip(-1, 2)
    content = {
        "ids": np.array(texts),
        "=name": np.array(texts[::-1]),
        "labels": labels,
        "number": np.arange(len(texts)) - 5.5,
        "words": np.array([[text, "@"] for text in texts]),
    }
    with opened(path, content, class_names=["-a", "b", "@c"], rows=len(texts)) as predictions:
        predictions.to_csv(tmp_path / "p.csv", raw_cells=raw_cells)
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    escaped = texts if raw_cells else [f"'{text}" for text in FORMULAS] + texts[len(FORMULAS) :]
    sign = "" if raw_cells else "'"
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    assert list(columns["ids"]) == escaped
    assert list(columns[f"{sign}=name"]) == escaped[::-1]
    assert list(columns["words/0"]) == escaped
    assert set(columns["words/1"]) == {f"{sign}@"}
    assert list(columns["labels/name"])[:4] == ["", f"{sign}-a", "b", f"{sign}@c"]
    assert list(map(float, columns["number"])) == content["number"].tolist()
    assert list(map(int, columns["labels"])) == labels.tolist()


# tf.data


@pytest.mark.parametrize(("batch_size", "block_bytes"), [(7, 2**23), (7, 1), (60, 1), (100, 1)])
def test_tf_dataset(predictions, batch_size, block_bytes, monkeypatch):
    """A dataset of dicts has the rows of the file in order, in batches, as often as it is read."""
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr("kerasext.storage.exports.tf_dataset._BLOCK_BYTES", block_bytes)
    dataset = predictions.to_tf_dataset(batch_size=batch_size)
    for _ in range(2):
        batches = list(dataset)
        assert len(batches) == len(dataset) == -(-ROWS // batch_size)
        for name in predictions:
            expected = stored(predictions.path, name)
            parts = [batch[name] for batch in batches]
            if expected[0].dtype.kind != "U":
                dtype = tf.as_dtype(expected[0].dtype.newbyteorder("="))
                assert {part.dtype for part in parts} == {dtype}
            rows = [row for part in parts for row in _rows(part)]
            assert same(_as_text(rows), as_lists(expected))


def _rows(tensor):
    if not hasattr(tensor, "row_splits"):
        return tensor.numpy().tolist()
    values = _rows(tensor.values)  # `to_list` takes seconds
    return [values[start:stop] for start, stop in itertools.pairwise(tensor.row_splits.numpy())]


def _as_text(values):
    if isinstance(values, list):
        return list(map(_as_text, values))
    return values.decode() if isinstance(values, bytes) else values


def test_tf_dataset_signature(predictions):
    """The element specification says dtypes, row shapes, and which outputs are ragged."""
    tf = pytest.importorskip("tensorflow")
    spec = predictions.to_tf_dataset(batch_size=8).element_spec
    assert spec.keys() == {*DENSE, *RAGGED}
    assert spec["mask"] == tf.TensorSpec((None, 2, 3), tf.bool)
    assert spec["types/text"] == tf.TensorSpec((None,), tf.string)
    boxes = tf.RaggedTensorSpec((None, None, None), tf.float32, ragged_rank=2)
    assert spec["head/boxes"] == boxes


def test_tf_dataset_of_complex_numbers(path):
    """TensorFlow has complex numbers."""
    pytest.importorskip("tensorflow")
    values = np.full(ROWS, 1 + 2j, "c8")
    with opened(path, {"spectrum": values}) as predictions:
        (batch,) = predictions.to_tf_dataset(batch_size=ROWS)
        np.testing.assert_array_equal(batch["spectrum"].numpy(), values, strict=True)


def test_tf_dataset_refuses_what_tensorflow_has_not(path):
    """An output that TensorFlow has no type for is refused by name."""
    pytest.importorskip("tensorflow")
    if np.dtype("g").itemsize == 8:
        pytest.skip("long double is double here")
    with (
        opened(path, {"precise": np.ones(ROWS, "g")}) as predictions,
        pytest.raises(TypeError, match=r"'precise'; leave it out with `outputs`.*float128"),
    ):
        predictions.to_tf_dataset(batch_size=ROWS)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_tf_dataset_of_impossible_batches(predictions, batch_size):
    """A batch size that is not positive is refused."""
    with pytest.raises(ValueError, match=f"batch_size={batch_size}$"):
        predictions.to_tf_dataset(batch_size=batch_size)


# All of them


def pandas_rows(predictions, _, **options):
    """The rows of a data frame made of a file."""
    return len(predictions.to_pandas(**options))


def arrow_rows(predictions, _, **options):
    """The rows of a table of Arrow made of a file."""
    return predictions.to_arrow(**options).num_rows


def parquet_rows(predictions, folder, **options):
    """The rows of a Parquet file made of a file."""
    predictions.to_parquet(folder / "p.parquet", **options)
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_metadata(folder / "p.parquet").num_rows


def tf_rows(predictions, _, **options):
    """The rows of a dataset of TensorFlow made of a file."""
    dataset = predictions.to_tf_dataset(batch_size=30, **options)
    return sum(len(next(iter(batch.values()))) for batch in dataset)


METHODS = {
    "pandas": pandas_rows,
    "pyarrow": arrow_rows,
    "pyarrow.parquet": parquet_rows,
    "tensorflow": tf_rows,
}


@pytest.fixture(params=METHODS)
def export(request, tmp_path):
    """A way to export, which returns the number of rows that came out."""
    pytest.importorskip(request.param)
    return lambda predictions, **options: METHODS[request.param](predictions, tmp_path, **options)


@pytest.mark.parametrize("rows", [0, 1, 46])
def test_incomplete_file(path, export, rows):
    """What is committed of a file that is being written goes out, and later more, after refresh."""
    content = {**DENSE, **RAGGED}
    is_ragged = [*RAGGED]
    writer = PredictionFileWriter(path, ragged=is_ragged, class_names=NAMES)
    writer.append({name: values[:rows] for name, values in content.items()})
    writer.commit()
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        assert export(predictions) == rows
        writer.append({name: values[rows:] for name, values in content.items()})
        writer.finish()
        assert export(predictions) == rows
        predictions.refresh()
        assert export(predictions) == ROWS


def test_chosen_outputs(predictions):
    """Outputs and groups of them go out in the order asked for, each once."""
    pytest.importorskip("pandas")
    frame = predictions.to_pandas(outputs=["confidence", "types/f4", "types", "labels"])
    found = frame.columns.tolist()
    assert found[:2] == ["confidence", "types/f4"]
    assert found[-2:] == ["labels", "labels/name"]
    assert sorted(found) == sorted(["confidence", "labels", "labels/name", *NUMBERS])


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        (["label"], ValueError, "of the file, or groups.* is 'labels'. Received: 'label'"),
        (["labels", "type"], ValueError, "the nearest is 'types'. Received: 'type'"),
        (["zzz"], ValueError, "they are \\['confidence', .*Received: 'zzz'"),
        (["types/"], ValueError, "the nearest is 'types'"),
        ([], ValueError, "at least one output"),
        ("labels", TypeError, "list of names. Received: outputs='labels'"),
        ([3], TypeError, "list of names"),
    ],
)
def test_outputs_that_are_not_there(predictions, export, outputs, error, message):
    """An unknown name is refused, with the nearest that there is."""
    with pytest.raises(error, match=message):
        export(predictions, outputs=outputs)


def test_labels_without_a_name(path, tmp_path):
    """A label beyond the names of the classes is refused, by the output."""
    for package, method in METHODS.items():
        if package == "tensorflow":
            continue
        pytest.importorskip(package)
        with (
            opened(path, {"labels": LABELS + 1}, class_names=NAMES, mode="w") as predictions,
            pytest.raises(ValueError, match=r"'labels' must be -1 .* to 2.*labels from 0 to 3"),
        ):
            method(predictions, tmp_path)


def test_closed_file(predictions, export):
    """A closed file says so."""
    predictions.close()
    with pytest.raises(ValueError, match="closed"):
        export(predictions)


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))  # None there: not to be imported
from kerasext.storage import PredictionFile
predictions = PredictionFile({path!r})
for call in (
    lambda: predictions.to_pandas(),
    lambda: predictions.to_arrow(),
    lambda: predictions.to_parquet("p.parquet"),
    lambda: predictions.to_tf_dataset(batch_size=3),
):
    try:
        call()
    except ImportError as error:
        print(error)
loaded = {{name.partition(".")[0] for name, module in sys.modules.items() if module}}
print(loaded & {{"pandas", "pyarrow", "tensorflow", "keras", "duckdb"}})
"""


def test_missing_packages(predictions, tmp_path):
    """Without its package each method says how to install it; reading loads none of them."""
    blocked = ["pandas", "pyarrow", "tensorflow"]
    script = WITHOUT.format(blocked=blocked, path=str(predictions.path))
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert run.stdout.splitlines() == [
        "to_pandas needs pandas; pip install pandas",
        "to_arrow needs pyarrow; pip install pyarrow",
        "to_parquet needs pyarrow; pip install pyarrow",
        "to_tf_dataset needs tensorflow; pip install tensorflow",
        "set()",
    ]


def test_csv_gives_every_number_back(path, tmp_path, monkeypatch):
    """A CSV file has the columns of `to_pandas`, written in blocks, to the last digit."""
    monkeypatch.setattr("kerasext.storage.exports.csv_file._BLOCK_BYTES", 1000)
    pandas = pytest.importorskip("pandas")
    write(path, {**DENSE, **RAGGED}, class_names=NAMES)
    target = tmp_path / "out.csv"
    with PredictionFile(path) as predictions:
        predictions.to_csv(target)
        frame = predictions.to_pandas()
    text = target.read_bytes()
    assert text.count(b"\n") == ROWS + 1
    assert b"\r" not in text
    options = {"keep_default_na": False, "na_values": ["", "NaN", "nan"]}
    version = tuple(map(int, pandas.__version__.split(".")[:2]))
    if version < (3, 1):  # which reads the last digit otherwise
        options["float_precision"] = "round_trip"
    read = pandas.read_csv(target, **options)
    assert list(read) == list(frame)
    for name in frame:
        column = frame[name]
        if isinstance(column.iloc[0], np.ndarray):
            for found, row in zip(read[name], column, strict=True):
                assert json.loads(found) == row.tolist()
        elif column.dtype.kind in "biuf":
            np.testing.assert_array_equal(read[name].astype(column.dtype), column, err_msg=name)
        else:
            found = read[name].fillna("").astype(str).tolist()
            assert found == column.astype(object).where(column.notna(), "").tolist(), name


def test_csv_of_no_rows(path, tmp_path):
    """A file without rows gives the line with the names of the columns."""
    pytest.importorskip("pandas")
    writer = PredictionFileWriter(path)
    writer.append({"labels": LABELS[:0], "confidence": np.zeros(0, "f4")})
    writer.finish()
    with PredictionFile(path) as predictions:
        predictions.to_csv(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "confidence,labels\n"


def test_csv_leaves_what_is_there_after_an_error(path, tmp_path):
    """A file appears under its name when it is whole, and never in place of the one read."""
    pytest.importorskip("pandas")
    write(path, {"labels": LABELS})
    (tmp_path / "out.csv").write_text("precious")
    with PredictionFile(path) as predictions:
        with pytest.raises(ValueError, match="the nearest is 'labels'"):
            predictions.to_csv(tmp_path / "out.csv", outputs=["label"])
        with pytest.raises(ValueError, match="must not be the file that is read"):
            predictions.to_csv(path)
    assert (tmp_path / "out.csv").read_text() == "precious"
