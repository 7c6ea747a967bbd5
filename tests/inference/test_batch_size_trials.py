import pytest

from kerasext.inference import batch_size_trials
from kerasext.inference.batch_size_trials import SIZES, Trials

MANY = 10**9


class Machine:
    """Predicts rows at given rates, on a clock of its own."""

    def __init__(self, rates, *, first=0.0, memory=MANY):
        self.rates = rates
        self.first = first
        self.memory = memory
        self.now = 0.0
        self.calls = []

    def predict(self, rows, size):
        if size > self.memory:
            raise MemoryError
        seen = size in [called for _, called in self.calls]
        self.now += rows / self.rates[size] + (0 if seen else self.first)
        self.calls.append((rows, size))


@pytest.fixture
def trials(monkeypatch):
    """Runs trials of a machine."""

    def run(machine, *, rows=MANY, largest=MANY, goes_on=lambda _: True):
        monkeypatch.setattr(batch_size_trials.time, "perf_counter", lambda: machine.now)
        trials = Trials(machine.predict, rows, largest, seconds=0.1)
        trials.run(goes_on)
        return trials

    return run


def rates(*values):
    """The rate at each size, the last one for all that follow."""
    padded = [*values, *[values[-1]] * len(SIZES)]
    return dict(zip(SIZES, padded, strict=False))


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([1e4, 2e4, 4e4, 8e4, 16e4, 32e4, 33e4], 32768),
        ([1e4, 1e4, 1e4, 1e4, 1e4, 1e4], 32),
        ([1e4, 5e4, 4e4, 3e4], 128),
        ([1e4, 5e4, 4e4, 9e4, 9.1e4, 9.2e4], 2048),
        ([1e4, 9.4e4, 10e4, 10e4], 512),
        ([1e4, 9.6e4, 10e4, 10e4], 128),
    ],
)
def test_the_smallest_that_is_nearly_the_best(trials, values, best):
    """The smallest size within 5 % of the best rate is chosen."""
    assert trials(Machine(rates(*values))).best.batch_size == best


def test_it_stops_where_more_is_slower(trials):
    """Two sizes in a row that are slower end it, one alone does not."""
    found = trials(Machine(rates(1e4, 5e4, 4e4, 3e4, 9e9)))
    assert [trial.batch_size for trial in found.trials] == [32, 128, 512, 2048]
    assert found.is_conclusive


def test_what_is_measured(trials):
    """The first batch of a size, in which the model is traced, is timed by itself."""
    found = trials(Machine(rates(1e4), first=3.0), goes_on=lambda _: False)
    (trial,) = found.trials
    assert trial.first_seconds == pytest.approx(3 + 32 / 1e4)
    assert trial.rows_per_second == pytest.approx(1e4)
    assert trial.seconds >= 0.1
    assert not found.is_conclusive


def test_rows_are_counted(trials):
    """All rows that were predicted are counted, so that the next ones can go on after them."""
    machine = Machine(rates(1e4, 2e4))
    assert trials(machine).done == sum(rows for rows, _ in machine.calls)


def test_close_ones_are_measured_again(trials):
    """The sizes near the best rate are timed once more, and what is found then counts."""
    machine = Machine(rates(1e4, 5e4, 9e4, 10e4, 2e4, 1e4))
    found = trials(machine)
    assert found.best.batch_size == 2048
    machine.rates[2048] = 1e4  # as if another program had run before
    before = [trial.rows for trial in found.trials]
    found.measure_again(0.5)
    again = [
        trial.batch_size
        for trial, rows in zip(found.trials, before, strict=True)
        if trial.rows > rows
    ]
    assert again == [512, 2048]
    assert found.best.batch_size == 512


@pytest.mark.parametrize(("rows", "tried"), [(159, []), (160, [32]), (10_000, [32, 128, 512])])
def test_few_rows(trials, rows, tried):
    """No more rows are predicted than there are, and no size is tried that needs more."""
    machine = Machine(rates(1e3, 1e4, 1e7))
    found = trials(machine, rows=rows)
    assert [trial.batch_size for trial in found.trials] == tried
    assert found.done <= rows
    assert not found.is_conclusive


@pytest.mark.parametrize(("largest", "last"), [(1, 32), (127, 32), (600, 512), (MANY, 131_072)])
def test_largest_size(trials, largest, last):
    """Sizes above the largest one are not tried, but for the smallest."""
    found = trials(Machine(rates(1, 2, 3, 4, 5, 6)), largest=largest)
    assert found.trials[-1].batch_size == last
    assert found.is_conclusive


def test_out_of_memory(trials):
    """The size at which memory runs out ends it, and is not the answer."""
    found = trials(Machine(rates(1, 2, 3, 4, 5, 6), memory=600))
    assert found.best.batch_size == 512
    assert found.is_conclusive


def test_out_of_memory_at_once(trials):
    """Where the smallest size does not fit, there is no answer."""
    with pytest.raises(MemoryError):
        trials(Machine(rates(1), memory=8))


def test_other_errors_are_raised(trials):
    """An error that is not of memory is the caller's."""
    machine = Machine({32: 1e4})  # and no rate for the next size
    with pytest.raises(KeyError):
        trials(machine)
