import numpy as np
import pytest

from kerasext.evaluation.drift.running_figures import RunningFigures
from kerasext.storage import RaggedRows


def taken(labels, confidence, *, cuts=(), **options):
    """Figures of rows that came in some parts."""
    figures = RunningFigures(**{"bins": 20, **options})
    parts = np.split(labels, cuts), np.split(confidence, cuts)
    for some_labels, some_confidence in zip(*parts, strict=True):
        figures.take(some_labels, some_confidence)
    return figures


@pytest.fixture
def labels():
    """Labels of 1,000 rows, some without one."""
    return np.random.default_rng(0).integers(-1, 5, 1000).astype("int32")


@pytest.fixture
def confidence():
    """Confidence of 1,000 rows: on edges of bins, between them, and NaN."""
    values = np.random.default_rng(1).random(1000).astype("float32")
    values[:300] = values[:300].round(2)
    values[300:303] = 0, 1, np.nan
    return values


@pytest.mark.parametrize("cuts", [(), (1, 1, 400, 999)])
def test_figures_are_those_of_all_rows(labels, confidence, cuts):
    """In whatever parts rows come, the figures are what NumPy says of all of them."""
    figures = taken(labels, confidence, cuts=cuts)
    assert figures.rows == 1000
    assert figures.unlabelled == np.sum(labels == -1)
    expected = np.bincount(labels[labels >= 0], minlength=5) / np.sum(labels >= 0)
    np.testing.assert_allclose(figures.class_shares, expected)
    known = confidence[~np.isnan(confidence)]
    histogram, _ = np.histogram(known.astype("float64"), 20, (0, 1))
    np.testing.assert_array_equal(figures.confidence_counts, histogram)
    assert figures.share_below_threshold == np.mean(known < 0.5)


def test_confidence_that_rounding_puts_outside_is_in_the_outer_bins():
    """A softmax may say a little more than 1."""
    figures = taken(np.zeros(3, "int32"), np.float32([-1e-7, 1 + 1e-7, 1]), bins=4)
    assert figures.confidence_counts.tolist() == [1, 0, 0, 2]


def test_the_threshold_is_compared_as_a_user_would():
    """A float32 that is written 0.1 is not below a threshold of 0.1."""
    confidence = np.float32([0.1, 0.0999, 0.7])
    figures = taken(np.zeros(3, "int32"), confidence, threshold=0.1)
    assert figures.share_below_threshold == np.mean(confidence < 0.1) == pytest.approx(1 / 3)


def test_indicators_are_counted_by_label():
    """Of indicators each label has a share of its own, and -1 is no indicator."""
    labels = np.int32([[1, 0, -1], [1, 1, -1], [1, 0, 0], [0, -1, 1]])
    figures = taken(labels, np.full((4, 3), 0.9, "float32"), cuts=(3,), task="multilabel")
    np.testing.assert_allclose(figures.class_shares, [3 / 4, 1 / 3, 1 / 2])
    assert (figures.rows, figures.classes, figures.unlabelled) == (4, 3, 3)


@pytest.mark.parametrize("task", [None, "multilabel"])
def test_further_axes_count_alike(task):
    """Each position of tokens or pixels is counted, and rows are rows."""
    labels = np.random.default_rng(0).integers(0, 2, (6, 4, 3)).astype("int32")
    figures = taken(labels, np.full(labels.shape, 0.5), task=task)
    assert figures.rows == 6
    assert figures.confidence_counts.sum() == 72
    expected = labels.mean((0, 1)) if task else [1 - labels.mean(), labels.mean()]
    np.testing.assert_allclose(figures.class_shares, expected)


@pytest.mark.parametrize("task", [None, "multilabel"])
def test_rows_of_different_shapes(task):
    """Rows that are stored flat are counted position by position."""
    shapes = np.int64([[2, 3], [0, 3], [1, 3]])
    labels = np.int32([0, 1, 1, 0, 0, 1, 1, 0, 1])
    ragged = RaggedRows(labels, shapes), RaggedRows(np.full(9, 0.9, "float32"), shapes)
    figures = RunningFigures(bins=20, task=task)
    figures.take(*ragged)
    expected = labels.reshape(3, 3).mean(0) if task else [4 / 9, 5 / 9]
    np.testing.assert_allclose(figures.class_shares, expected)
    assert (figures.rows, figures.confidence_counts.sum()) == (3, 9)


@pytest.mark.parametrize("task", [None, "multilabel"])
def test_no_rows(task):
    """Without rows shares are NaN, and nothing is warned of."""
    shape = (0, 3) if task else (0,)
    figures = taken(np.zeros(shape, "int32"), np.zeros(shape, "float32"), classes=3, task=task)
    assert np.isnan(figures.class_shares).tolist() == [True] * 3
    assert np.isnan(figures.share_below_threshold)
    assert figures.rows == 0


def test_classes_that_are_known_have_shares():
    """A class that never comes has the share 0."""
    figures = taken(np.int32([0, 0]), np.float32([1, 1]), classes=4)
    assert figures.class_shares.tolist() == [1, 0, 0, 0]


def test_names_of_classes():
    """Shares are by name, and two classes of one name are kept apart."""
    figures = taken(np.int32([0, 2]), np.float32([1, 1]), class_names=["cat", "dog", "cat"])
    assert figures.class_shares == {"cat (0)": 0.5, "dog": 0, "cat (2)": 0.5}


def test_the_classes_of_others():
    """A copy has the classes and the names of other figures; the figures stay as they are."""
    figures = taken(np.int32([0, 1]), np.float32([1, 1]))
    other = taken(np.int32([2]), np.float32([1]), class_names=list("abc"))
    assert figures.with_classes_of(other).class_shares == {"a": 0.5, "b": 0.5, "c": 0}
    assert other.with_classes_of(figures).class_shares == {"a": 0, "b": 0, "c": 1}
    assert figures.class_shares.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (np.float32([0.5]), None, "dtype=float32"),
        (np.int32([-2, 0]), None, "from -2 to 0"),
        (np.int64([2**40]), None, "from 1099511627776"),
        (np.int32([[0, 2]]), "multilabel", "from 0 to 2"),
    ],
)
def test_what_is_no_label_is_refused(labels, task, message):
    """Other numbers than labels are an error that leaves the figures as they were."""
    figures = RunningFigures(bins=20, task=task)
    with pytest.raises(ValueError, match=f"`labels` must be integers.*{message}"):
        figures.take(labels, np.ones(len(labels)))
    assert (figures.rows, figures.confidence_counts.sum()) == (0, 0)


def test_the_largest_label_of_a_narrow_dtype():
    """Labels of int8 are counted up to the last one."""
    figures = taken(np.int8([127, -1]), np.float32([1, 1]))
    assert figures.class_shares[127] == 1
