import h5py
import ml_dtypes
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedRows
from kerasext.storage.columns.fixed_point import attributes_for, decode, encode, scale_for, scale_of

STORED = ["u1", "u2", ">u2"]
FLOATS = ["f2", "f4", "f8", ">f4", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
ROUNDING = 1e-7  # of numbers up to 1 in float32
ROWS = 200
UNIT = np.random.default_rng(0).random((ROWS, 3)).astype("f4")
UNIT[[5, 7]] = np.nan
UNIT[:3, 0] = [0, 1, 0.5]


def there_and_back(values, dtype):
    """Numbers as they are read again."""
    dtype = np.dtype(dtype)
    stored = encode(values, dtype)
    assert stored.dtype == dtype
    return decode(stored, scale_for(dtype))


def read(path):
    """Reads all outputs of a file."""
    with PredictionFile(path) as predictions:
        return {name: output[:] for name, output in predictions.items()}


def write(path, steps, *, mode="x", dtypes=None, finish=True, **options):
    """Writes steps as uint8 unless asked otherwise."""
    dtypes = dtypes or {"p": "uint8"}
    writer = PredictionFileWriter(path, mode=mode, dtypes=dtypes, **options)
    try:
        for step in steps:
            writer.append({"p": step} if not isinstance(step, dict) else step)
        if finish:
            writer.finish()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("dtype", "step"), [("u1", 1 / 254), ("u2", 1 / 65534), (">u2", 1 / 65534)]
)
@pytest.mark.parametrize("given", FLOATS, ids=str)
def test_bound(given, dtype, step):
    """Of 100,000 numbers none is further away than half a step and the rounding to float32."""
    values = np.random.default_rng(0).random(100_000).astype(given)
    found = there_and_back(values, dtype)
    assert found.dtype == np.float32
    assert np.abs(found - values.astype("f8")).max() <= step / 2 + ROUNDING


@pytest.mark.parametrize("dtype", STORED)
def test_every_step_is_exact(dtype):
    """0, 1 and all steps between come back as they were, in order."""
    top = np.iinfo(dtype).max - 1
    steps = np.arange(top + 1) / top
    np.testing.assert_array_equal(encode(steps, np.dtype(dtype)), np.arange(top + 1))
    found = there_and_back(steps, dtype)
    assert (found[0], found[-1]) == (0, 1)
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, steps, rtol=1e-6)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("given", ["f2", "f4", "f8", ml_dtypes.bfloat16], ids=str)
def test_nan(given, dtype):
    """NaN is the largest whole number, and NaN again."""
    values = np.array([np.nan, 1, 0]).astype(given)
    largest = np.iinfo(dtype).max
    assert encode(values, np.dtype(dtype)).tolist() == [largest, largest - 1, 0]
    np.testing.assert_array_equal(there_and_back(values, dtype), [np.nan, 1, 0])


@pytest.mark.parametrize("dtype", STORED)
def test_what_rounding_adds_is_taken_off(dtype):
    """A little more than 1, or less than 0, is 1 or 0."""
    values = np.array([1 + 1e-6, -1e-6, -0.0, np.nextafter(1, 2)], "f4")
    np.testing.assert_array_equal(there_and_back(values, dtype), [1, 0, 0, 1])


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("value", [-0.01, 1.01, np.inf, -np.inf, 2.0, 3e38, -3e38])
@pytest.mark.parametrize("given", ["f4", "f8", ml_dtypes.bfloat16], ids=str)
def test_what_is_outside(value, given, dtype):
    """Whatever else is not in [0, 1] is refused, infinity too, and NumPy warns of nothing."""
    with pytest.raises(OverflowError, match=r"must be in \[0, 1\]"):
        encode(np.array([0.5, value, np.nan]).astype(given), np.dtype(dtype))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 3, 4)])
def test_shapes(shape):
    """Arrays of any shape keep it, also without any number."""
    assert there_and_back(np.zeros(shape, "f4"), "u1").shape == shape


def test_which_dtypes():
    """Unsigned numbers of one or two bytes, and no others."""
    assert scale_for(np.dtype("u1")) == np.float32(1 / 254)
    assert scale_for(np.dtype("u2")) == scale_for(np.dtype(">u2")) == np.float32(1 / 65534)
    for dtype in ("i1", "u4", "i2", "f2", "f4", "?", "S1"):
        assert scale_for(np.dtype(dtype)) is None


@pytest.mark.parametrize("dtype", STORED)
def test_attributes(dtype):
    """A dataset says by its attributes, as CF has them, which numbers it holds."""
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("p", (2,), dtype)
        assert scale_of(dataset) is None
        dataset.attrs.update(attributes_for(np.dtype(dtype)))
        assert scale_of(dataset) == scale_for(np.dtype(dtype))
        assert dataset.attrs.get_id("scale_factor").dtype == np.float32
        assert dataset.attrs.get_id("_FillValue").dtype == np.dtype(dtype)
        assert dataset.attrs["_FillValue"] == np.iinfo(dtype).max


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_in_the_file(dtype, path):
    """Plain h5py has whole numbers, compressed, and two attributes that make floats of them."""
    write(path, [UNIT[:90], UNIT[90:]], dtypes={"p": dtype})
    with h5py.File(path) as file:
        dataset = file["p"]
        assert (dataset.dtype, dataset.compression) == (dtype, "gzip")
        stored, scale, fill = (
            dataset[()],
            dataset.attrs["scale_factor"],
            dataset.attrs["_FillValue"],
        )
    found = np.where(stored == fill, np.nan, stored * scale)
    np.testing.assert_allclose(found, UNIT, rtol=0, atol=scale / 2 + ROUNDING)


def test_compression_can_be_turned_off(path):
    """As for every output."""
    write(path, [UNIT], compression=None)
    with h5py.File(path) as file:
        assert file["p"].compression is None


@pytest.mark.parametrize("given", FLOATS, ids=str)
def test_read_back(given, path):
    """The reader gives float32, whatever floats there were, and verifies what is stored."""
    with np.errstate(invalid="ignore"):
        values = UNIT.astype(given)
    write(path, [values])
    with PredictionFile(path) as predictions:
        predictions.verify()
        output = predictions["p"]
        assert (output.dtype, output.nbytes) == (np.float32, 4 * UNIT.size)
        expected = values.astype("f4")
        np.testing.assert_allclose(output[:], expected, rtol=0, atol=1 / 508 + ROUNDING)
        np.testing.assert_array_equal(np.isnan(output), np.isnan(expected))


def test_integers_stay_what_they_are(path):
    """An output of integers in the same dtype has no scale, and every number."""
    write(path, [np.arange(256)])
    with h5py.File(path) as file:
        assert "scale_factor" not in file["p"].attrs
    with PredictionFile(path) as predictions:
        np.testing.assert_array_equal(predictions["p"][:], np.arange(256, dtype="u1"), strict=True)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.inf])
def test_what_is_outside_is_refused_by_name(value, path):
    """With the range, what it is for and what to do; rows before it are kept."""
    bad = UNIT.copy()
    bad[3, 1] = value
    message = rf"'p' must be in \[0, 1\].*for probabilities.*'p': 'float16'.*Received.*{value}"
    with pytest.raises(ValueError, match=message):
        write(path, [bad])
    assert not path.exists()
    with pytest.raises(ValueError, match=message):
        write(path, [UNIT, bad])
    with PredictionFile(path) as predictions:
        assert predictions.rows == ROWS


@pytest.mark.parametrize(
    ("first", "later"), [("f4", "u1"), ("f4", "f8"), ("f4", "i4"), ("u1", "f4"), ("i4", "f4")]
)
def test_later_steps_of_another_dtype(first, later, path):
    """Floats and integers are not mixed within a call, even where the integers are of its dtype."""
    steps = [np.zeros((2, 3), first), np.zeros((2, 3), later)]
    with pytest.raises(ValueError, match="'p' must have the same dtype in every step"):
        write(path, steps)


@pytest.mark.parametrize("is_ragged", [False, True])
def test_adding_rows(is_ragged, path):
    """Rows are added to a file of either kind if they are of that kind, and refused if not."""
    whole = np.ones((2, 3), "u1")
    for first, other, kind in [(UNIT, whole, "uint8 in steps of 0.0039"), (whole, UNIT, "uint8")]:
        path.unlink(missing_ok=True)
        write(path, [first], ragged=is_ragged)
        write(path, [first], ragged=is_ragged, mode="a")
        before = path.read_bytes()
        for mode in ("a", "resume"):
            if mode == "resume":
                write(path, [first], ragged=is_ragged, mode="a", finish=False)
                before = path.read_bytes()
            with pytest.raises(ValueError, match=rf"'p' must keep.*dtype {kind}.*dtype uint8"):
                write(path, [other], ragged=is_ragged, mode=mode)
            assert path.read_bytes() == before
        with PredictionFile(path) as predictions:
            found = np.stack(list(predictions["p"]))
        expected = np.concatenate([first] * 3)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1 / 508 + ROUNDING)


def test_another_dtype_is_not_added(path):
    """Nor uint16 to uint8, nor floats as they are."""
    write(path, [UNIT])
    for dtypes in ({"p": "uint16"}, {"p": "float32"}):
        with pytest.raises(ValueError, match="'p' must keep"):
            write(path, [UNIT], dtypes=dtypes, mode="a")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("is_ragged", [False, True])
def test_resume(is_ragged, dtype, path):
    """Rows that are predicted again may be off by a step and what kernels differ by, no more."""
    options = {"dtypes": {"p": dtype}, "ragged": is_ragged, "mode": "resume"}
    write(path, [UNIT[:50]], finish=False, **options)
    step = 1 / (np.iinfo(dtype).max - 1)
    with PredictionFile(path) as predictions:
        known = np.stack(list(predictions["p"][40:50]))
    for difference, same in [
        (step, True),
        (-step, True),
        (3 * step + 0.02, False),
        (np.nan, False),
    ]:
        writer = PredictionFileWriter(path, **options)
        other = np.clip(known + difference, 0, 1).astype("f4")
        if same:
            writer.append({"p": other}, known=10)
        else:
            with pytest.raises(ValueError, match="other values of output 'p'"):
                writer.append({"p": other}, known=10)
        writer.close()
    write(path, [UNIT[50:]], **options)
    with PredictionFile(path) as predictions:
        found = np.stack(list(predictions["p"]))
    np.testing.assert_allclose(found, UNIT, rtol=0, atol=step / 2 + ROUNDING)


def test_rows_of_different_shapes(path):
    """Whichever way they are read they are float32, padded with what was asked for."""
    rows = [UNIT[:n, :2] for n in (2, 0, 9, 1)]
    ragged = RaggedRows(
        np.concatenate([row.ravel() for row in rows]), np.array([row.shape for row in rows])
    )
    write(path, [ragged, ragged], ragged=["p"])
    with h5py.File(path) as file:
        assert (file["p/values"].dtype, file["p/values"].compression) == ("u1", "gzip")
        assert set(file["p/values"].attrs) == {"scale_factor", "_FillValue"}
        assert list(file["p/row_splits"].attrs) == []
    with PredictionFile(path) as predictions:
        predictions.verify()
        output = predictions["p"]
        for found in (output[:], output[[0, 1, 2, 3, 4, 5, 6, 7]], list(output.flat(0, 8))):
            for array, row in zip(found, rows * 2, strict=True):
                np.testing.assert_allclose(array, row, rtol=0, atol=1 / 508 + ROUNDING)
                assert array.dtype == output.dtype == np.float32
        padded = output.padded([3, 0], value=np.nan)
        assert padded.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(padded), [[[0, 0], [1, 1]], [[0, 0], [0, 0]]])


DAMAGES = {
    "of another type": {"scale_factor": b"x"},
    "of any length": {"scale_factor": "1"},
    "several": {"scale_factor": np.ones(2, "f4")},
    "a whole number": {"scale_factor": 1},
    "without a value": {"scale_factor": h5py.Empty("f4")},
    "negative": {"scale_factor": np.float32(-0.1)},
    "zero": {"scale_factor": 0.0},
    "no number": {"scale_factor": np.nan},
    "infinite": {"scale_factor": np.inf},
    "too large for float32": {"scale_factor": np.longdouble("1e4000")},
    "no fill value": {"_FillValue": None},
    "fill value of another type": {"_FillValue": np.float32(255)},
    "several fill values": {"_FillValue": np.full(2, 255, "u1")},
    "another fill value": {"_FillValue": np.uint8(254)},
    "fill value of any length": {"_FillValue": "255"},
}


def damage(dataset, attributes):
    """Gives a dataset other attributes, or takes them away."""
    for name, value in attributes.items():
        if value is None:
            del dataset.attrs[name]
        else:
            dataset.attrs[name] = value


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("is_ragged", [False, True])
def test_damaged_attributes(name, is_ragged, path):
    """Attributes that make no numbers are damage, when it is read and when rows are added."""
    write(path, [UNIT], ragged=is_ragged)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        damage(file["p/values" if is_ragged else "p"], DAMAGES[name])
    for attempt in (read, lambda path: write(path, [UNIT], mode="a", ragged=is_ragged)):
        with pytest.raises(ValueError, match=r"The file is damaged: .*('/p|_Fill)") as caught:
            attempt(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("dtype", ["f4", "i1", "u4", "?", "S4"])
def test_scale_of_another_dtype(dtype, path):
    """A scale where no output has one is damage; other attributes are nobody's business."""
    write(path, [np.zeros(3, dtype)], dtypes={"p": dtype})
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["p"].attrs["_FillValue"] = 0
        file["p"].attrs["units"] = "1"
    read(path)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["p"].attrs["scale_factor"] = np.float32(1 / 254)
    with pytest.raises(ValueError, match=r"The file is damaged: .*'/p' of dtype"):
        read(path)


def test_scale_of_another_program(path):
    """A smaller scale, as others may choose, is read as CF says, and no rows are added to it."""
    write(path, [UNIT])
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["p"].attrs["scale_factor"] = 0.001  # float64
    with PredictionFile(path) as predictions:
        assert predictions["p"].dtype == np.float32
        np.testing.assert_allclose(
            predictions["p"][:], UNIT * 0.254, rtol=0, atol=0.0005 + ROUNDING
        )
    with pytest.raises(ValueError, match=r"in steps of 0\.001\. Received.*in steps of 0\.0039"):
        write(path, [UNIT], mode="a")


@pytest.mark.parametrize("package", ["pandas", "pyarrow", "pyarrow.parquet", "tensorflow"])
def test_exports(package, path, tmp_path):
    """Other tools get float32, as the reader gives it."""
    module = pytest.importorskip(package)
    write(path, [{"p": UNIT, "q": UNIT[:, 0]}], dtypes={"p": "uint8", "q": "uint16"})
    with PredictionFile(path) as predictions:
        expected = predictions["q"][:]
        if package == "pandas":
            frame = predictions.to_pandas()
            np.testing.assert_array_equal(frame["p/1"], predictions["p"][:, 1], strict=True)
            found = frame["q"].to_numpy()
        elif package == "pyarrow":
            found = predictions.to_arrow()["q"].to_numpy()
        elif package == "pyarrow.parquet":
            predictions.to_parquet(tmp_path / "p.parquet")
            found = module.read_table(tmp_path / "p.parquet")["q"].to_numpy()
        else:
            steps = list(predictions.to_tf_dataset(batch_size=64))
            found = np.concatenate([step["q"].numpy() for step in steps])
    np.testing.assert_array_equal(found, expected, strict=True)
