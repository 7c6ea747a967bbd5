"""`compare` finds out whether predictions are distributed as earlier ones."""

import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.evaluation import RunningFigures, compare
from kerasext.shards import index_shards
from kerasext.storage import PredictionFileWriter, RaggedRows


def predictions(rows=1000, *, seed=0, classes=4, shares=None):
    """Labels, some of them -1, and confidences, some of them NaN."""
    random = np.random.default_rng(seed)
    labels = random.choice(classes, rows, p=shares).astype("int32")
    labels[random.random(rows) < 0.05] = -1
    confidence = random.beta(5, 1, rows).astype("float32")
    confidence[labels == -1] = np.nan
    return {"labels": labels, "confidence": confidence}


def index_of(bins, values, others):
    """The population stability index by the formula, value by value, for filled bins."""
    index = 0.0
    for low, high in bins:
        p, q = (np.mean([low <= value < high for value in some]) for some in (values, others))
        if p or q:
            p, q = p or 0.5 / len(values), q or 0.5 / len(others)
            index += (p - q) * math.log(p / q)
    return index


def monitor_of(outputs, *, bins=20, head="", **options):
    """What `compare` needs of a monitor that has counted rows."""
    figures = RunningFigures(bins=bins, **options)
    figures.take(outputs["labels"], outputs["confidence"])
    return SimpleNamespace(head=head, figures=figures)


@pytest.fixture
def files(store, tmp_path):
    """Writes several sets of columns, each into a file of its own."""

    def write(*sets, **options):
        return [
            store(columns, **options).rename(tmp_path / f"{number}.h5")
            for number, columns in enumerate(sets)
        ]

    return write


@pytest.mark.parametrize("block", [None, 99])
def test_the_figures(files, monkeypatch, block):
    """They are those of the formula over all rows, in whatever blocks rows are read."""
    if block:
        monkeypatch.setattr("kerasext.evaluation.counts._BLOCK_BYTES", 8 * block)
    a, b = predictions(), predictions(700, seed=1, shares=[0.1, 0.2, 0.3, 0.4])
    found = compare(*files(a, b), bins=10)
    classes = [(label, label + 1) for label in range(-1, 4)]
    assert found.labels == pytest.approx(index_of(classes, a["labels"], b["labels"]))
    known = [each["confidence"][~np.isnan(each["confidence"])] for each in (a, b)]
    edges = np.linspace(0, 1, 11)
    assert found.confidence == pytest.approx(
        index_of([*zip(edges[:-1], [*edges[1:-1], 1.1], strict=True)], *known)
    )
    assert found.rows == (1000, 700)
    for shares, each in zip(found.class_shares, (a, b), strict=True):
        labels = each["labels"][each["labels"] >= 0]
        np.testing.assert_allclose(shares, [np.mean(labels == label) for label in range(4)])


def test_paths_files_indexes_and_monitors(files, tmp_path):
    """Whatever rows come from, the figures are the same; an open file stays open."""
    a, b = predictions(), predictions(seed=1)
    path, other = files(a, b)
    (tmp_path / "shards").mkdir()
    for number, part in enumerate((slice(0, 300), slice(300, None))):
        writer = PredictionFileWriter(tmp_path / f"shards/{number}.h5")
        writer.append({name: values[part] for name, values in a.items()})
        writer.finish()
    expected = compare(path, other)
    with PredictionFile(path) as file, PredictionFile(index_shards(tmp_path / "shards")) as index:
        for source in (str(path), file, index, monitor_of(a)):
            found = compare(source, monitor_of(b))
            assert (found.labels, found.confidence) == (expected.labels, expected.confidence)
        assert len(file["labels"][:]) == 1000
    swapped = compare(other, path)
    assert swapped.labels == pytest.approx(expected.labels)


@pytest.mark.parametrize("rows", [300, 30_000])
def test_chance(files, rows):
    """Samples of one distribution stay below what chance explains, and the text says so."""
    found = compare(*files(predictions(rows), predictions(rows, seed=1), step=rows))
    assert 0 < found.labels < found.index_by_chance["labels"]
    assert 0 < found.confidence < found.index_by_chance["confidence"]
    assert str(found).count("no more than chance explains") == 2


def test_the_text(files):
    """It says how many rows there were, and how to take the indexes."""
    a = predictions(10_000, shares=[0.7, 0.1, 0.1, 0.1])
    b = predictions(5_000, shares=[0.1, 0.7, 0.1, 0.1])
    b["confidence"] = b["confidence"] ** np.float32(1.2)
    text = str(compare(*files(a, b, step=10_000)))
    assert text.startswith("population stability index of 10,000 and 5,000 rows\n")
    assert text.splitlines()[1].endswith("  strong change")
    assert text.splitlines()[2].endswith("  little change")
    b["confidence"][:] = np.nan
    assert "unknown" in str(compare(*files(a, b, step=10_000)))


def test_a_head(files):
    """Of several heads the one that is chosen."""
    outputs = predictions()
    (path,) = files({f"{head}/{name}": outputs[name] for head in "ab" for name in outputs})
    assert compare(path, path, head="b").labels == 0
    assert compare(path, monitor_of(outputs, head="b"), head="b").labels == 0
    with pytest.raises(ValueError, match=r"pass `head`, one of \['a', 'b'\]"):
        compare(path, path)


def test_several_labels_a_row(files):
    """The label that is farthest off counts; each has its share."""
    labels = np.random.default_rng(0).integers(0, 2, (1000, 3)).astype("int32")
    a = {"labels": labels, "confidence": np.ones((1000, 3), "float32")}
    b = {**a, "labels": labels.copy()}
    b["labels"][::2, 1] = 1
    found = compare(*files(a, b, task="multilabel"))
    values = [(value, value + 1) for value in (-1, 0, 1)]
    assert found.labels == pytest.approx(index_of(values, labels[:, 1], b["labels"][:, 1]))
    assert (found.confidence, found.rows) == (0, (1000, 1000))
    np.testing.assert_allclose(found.class_shares, [labels.mean(0), b["labels"].mean(0)])


def test_pixels(files):
    """All positions count alike, but only rows count for what chance explains."""
    labels = np.random.default_rng(0).integers(0, 2, (50, 6, 7)).astype("int32")
    (path,) = files({"labels": labels, "confidence": np.ones(labels.shape, "float32")})
    found = compare(path, monitor_of(predictions(50)))
    np.testing.assert_allclose(found.class_shares[0], [1 - labels.mean(), labels.mean(), 0, 0])
    assert found.index_by_chance == compare(*[monitor_of(predictions(50))] * 2).index_by_chance


@pytest.mark.parametrize("numbers", [10, 10**6])
def test_rows_of_different_shapes(files, monkeypatch, numbers):
    """Outputs that are stored flat are counted position by position, long rows too."""
    monkeypatch.setattr("kerasext.evaluation.counts._BLOCK_BYTES", 8 * numbers)
    shapes = np.random.default_rng(0).integers(0, 20, (200, 1))
    outputs = predictions(int(shapes.sum()))
    (path,) = files({name: RaggedRows(values, shapes) for name, values in outputs.items()})
    found = compare(path, monitor_of(outputs))
    assert (found.labels, found.confidence) == (0, 0)
    assert found.rows == (200, len(outputs["labels"]))


def test_memory_is_constant(files):
    """Masks are read some at a time, however many rows a block may have."""
    shape = 64, 256, 256
    masks = {"labels": np.ones(shape, "int8"), "confidence": np.ones(shape, "float32")}
    (path,) = files(masks, step=64)
    compare(path, path)
    tracemalloc.start()
    try:
        compare(path, path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < masks["confidence"].nbytes


def test_classes_that_one_of_them_has_not(files):
    """A class that no row of one of them has is one of both, where classes are not known."""
    a, b = predictions(classes=2), predictions(classes=4)
    found = compare(*files(a, b))
    assert [len(shares) for shares in found.class_shares] == [4, 4]
    named = monitor_of(b, class_names=list("wxyz"))
    (path,) = files(a)
    assert [*compare(path, named).class_shares[0]] == list("wxyz")
    assert compare(path, named).class_shares[0]["z"] == 0


@pytest.mark.parametrize(
    ("options", "others", "received"),
    [
        ({"task": "classifier"}, {"task": "binary"}, "the tasks 'classifier' and 'binary'"),
        ({"classes": 4}, {"classes": 6}, "4 classes without names and 6 classes without names"),
        ({"classes": 5}, {"class_names": list("abcdef")}, r"and 6 classes \(a, b, c, d, e, ...\)"),
        (
            {"class_names": list("abcd")},
            {"class_names": list("abdc")},
            r"\(a, b, c, d\) and 4 classes \(a, b, d, c\)",
        ),
    ],
)
def test_what_is_not_alike(options, others, received):
    """Predictions of other tasks or classes are not compared."""
    outputs = predictions()
    with pytest.raises(ValueError, match=rf"`a` and `b` must be.*Received: .*{received}"):
        compare(monitor_of(outputs, **options), monitor_of(outputs, **others))


def test_tasks_and_classes_of_files(files):
    """They are those that the file names, or its probabilities show."""
    outputs = predictions()
    (path,) = files({**outputs, "probabilities": np.zeros((1000, 5), "float32")}, task="classifier")
    same = {"task": "classifier", "classes": 5}
    assert compare(path, monitor_of(outputs, **same)).labels == 0
    for change in ({"task": None}, {"classes": 6}):
        with pytest.raises(ValueError, match="`a` and `b` must be"):
            compare(path, monitor_of(outputs, **{**same, **change}))
    labels = {name: np.stack([values] * 3, axis=1) for name, values in outputs.items()}
    labels["labels"] = labels["labels"] % 2
    two = {name: values[:, :2] for name, values in labels.items()}
    with pytest.raises(ValueError, match="3 classes without names and 2 classes"):
        compare(*files(labels, two, task="multilabel"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 1}, "`bins` must be at least 2; .* Received: bins=1"),
        ({"bins": 30}, "`bins` must be that of the monitor `b`; pass bins=20. Received: bins=30"),
        ({"head": "a"}, "`head` must be that of the monitor `b`; pass head=''. Received: head='a'"),
    ],
)
def test_options(files, options, message):
    """They must make sense, and be those that a monitor was given."""
    outputs = predictions()
    (path,) = files({**outputs, **{f"a/{name}": values for name, values in outputs.items()}})
    with pytest.raises(ValueError, match=message):
        compare(path, monitor_of(outputs), **options)


def test_no_rows(files):
    """Files and monitors without rows are refused."""
    empty = {name: values[:0] for name, values in predictions().items()}
    with pytest.raises(ValueError, match="monitor `a` must have counted rows"):
        compare(SimpleNamespace(head="", figures=RunningFigures(bins=20)), monitor_of(empty))
    with pytest.raises(ValueError, match=r"at least one label.*shape \(0,\)"):
        compare(*files(empty), monitor_of(predictions()))


def test_what_can_not_be_compared(files, tmp_path):
    """Other outputs, no file, and other objects are an error that says what is needed."""
    outputs = predictions()
    (path,) = files({"labels": outputs["labels"]})
    with pytest.raises(ValueError, match="must have the output 'confidence'"):
        compare(path, path)
    with pytest.raises(FileNotFoundError):
        compare(tmp_path / "none.h5", path)
    with pytest.raises(TypeError, match=r"`b` must be a path.*Received: b=3"):
        compare(monitor_of(outputs), 3)
    (path,) = files({**outputs, "confidence": outputs["labels"]})
    with pytest.raises(TypeError, match="confidence floats"):
        compare(path, path)
