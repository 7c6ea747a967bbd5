import math

import numpy as np
import pytest

from kerasext.evaluation.drift.stability_index import index_by_chance, stability_index


def test_the_formula():
    """The sum over bins of `(p - q) * log(p / q)`, by hand."""
    by_hand = 0.2 * math.log(0.7 / 0.5) + -0.2 * math.log(0.3 / 0.5)
    assert stability_index(np.array([70, 30]), np.array([5, 5])) == pytest.approx(by_hand)


def test_the_same_distribution_and_the_other_way_round():
    """It is 0 for equal shares, whatever the numbers, and the same in both directions."""
    counts, other = np.array([10, 20, 0, 70]), np.array([35, 15, 0, 50])
    assert stability_index(counts, counts * 7) == pytest.approx(0)
    assert stability_index(counts, other) == pytest.approx(stability_index(other, counts))
    assert stability_index(counts, other) > 0.1


def test_empty_bins():
    """Bins that are empty in both add nothing; empty in one they are half a count there."""
    counts, other = np.array([4, 6, 0]), np.array([5, 0, 15])
    expected = sum((p - q) * math.log(p / q) for p, q in [(0.4, 0.25), (0.6, 0.025), (0.05, 0.75)])
    assert stability_index(counts, other) == pytest.approx(expected)
    padded = np.append(counts, [0, 0]), np.append(other, [0, 0])
    assert stability_index(*padded) == pytest.approx(expected)


def test_the_largest_of_several():
    """Of several distributions the one that is farthest off counts."""
    same, apart = [50, 50], [90, 10]
    found = stability_index(np.array([same, apart, same]), np.array([same, same, same]))
    assert found == pytest.approx(0.4 * math.log(9))


@pytest.mark.parametrize("counts", [np.array([0, 0]), np.zeros((0, 3), int)])
def test_nothing_is_not_compared(counts):
    """Without counts it is NaN, and nothing is warned of."""
    assert math.isnan(stability_index(counts, np.array([1, 1]) if counts.size else counts))


@pytest.mark.parametrize(("bins", "rows", "others"), [(5, 500, 2000), (20, 4096, 4096)])
def test_chance(bins, rows, others):
    """Samples of one distribution stay below what is said of chance, and not by far."""
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.full(bins, 5.0))
    found = [
        stability_index(random.multinomial(rows, shares), random.multinomial(others, shares))
        for _ in range(2000)
    ]
    limit = index_by_chance(bins, rows, others)
    assert np.mean(np.array(found) > limit) < 0.001
    assert limit < 8 * np.mean(found)
