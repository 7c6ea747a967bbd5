"""What the tests of shards share: a job in parts, and its rows."""

from pathlib import Path

import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter, RaggedRows

ROWS = 300
NAMES = ["cat", "größe", "dog"]
FINGERPRINT = "model_fingerprint"


def make_rows(*, text_ids=True):
    """Outputs of every kind, with ids in no order."""
    random = np.random.default_rng(0)
    probabilities = random.random((ROWS, 3), dtype="f4")
    numbers = random.permutation(ROWS) * 7
    return {
        "probabilities": probabilities,
        "labels": probabilities.argmax(axis=1).astype("i4"),
        "head/probabilities": np.where(probabilities > 0.99, np.nan, probabilities).astype("f4"),
        "mask": random.random((ROWS, 4, 0)).astype("f8"),
        "box": random.integers(-(2**40), 2**40, (ROWS, 2, 2)),
        "is_odd": numbers % 2 == 1,
        "phase": (random.random(ROWS) + 1j).astype("c8"),
        "targets/a/b": numbers.astype("u1"),
        "row": np.arange(ROWS) * 2,
        "ids": np.array([f"id-{n}" for n in numbers], "S") if text_ids else numbers,
    }


def write(path, rows, part=slice(None), *, finish=True, **options):
    """Writes some rows of a job to a file, text as wide as it is in them."""
    options = {
        "dtypes": {"head/probabilities": "uint8"} if "head/probabilities" in rows else None,
        "class_names": {"": NAMES, "head": NAMES[:2]},
        "attributes": {FINGERPRINT: "abc", "model_name": "net", "rank": part.start or 0},
        **options,
    }
    writer = PredictionFileWriter(path, **options)
    step = {}
    for name, values in rows.items():
        some = values[part]
        if isinstance(some, np.ndarray) and some.dtype.kind == "S":
            some = np.array(some.tolist() or [b"x"])[: len(some)]
        step[name] = some
    data_rows = 2 * len(step["row"]) if "row" in step else None
    writer.append(step, data_rows=data_rows)
    if finish:
        writer.finish()
    writer.close()
    return path


class Job:
    """A folder of shards, and the rows of all of them in the order of the shards."""

    def __init__(self, folder, rows):
        self.folder, self.rows = folder, rows
        self.ends = [0, 30, 30, 170, ROWS]  # the second has no rows
        self.shards = [
            write(folder / f"part-{number}.h5", rows, slice(*self.ends[number : number + 2]))
            for number in range(4)
        ]

    @property
    def by_id(self):
        """The rows in the order of their ids."""
        order = np.argsort(self.rows["ids"])
        return {name: values[order] for name, values in self.rows.items()}

    def state(self):
        """Bytes and times of the shards."""
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.shards}


def assert_rows(found, expected, *, places=slice(None)):
    """Outputs that were read are those that were written."""
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        stored = found[name][places]
        right = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        if name == "head/probabilities":
            np.testing.assert_allclose(stored, right[places], atol=1 / 500, err_msg=name)
        else:
            np.testing.assert_array_equal(stored, right[places], err_msg=name)


@pytest.fixture
def tools():
    """The functions above, which test modules can't import."""
    names = {"write": write, "assert_rows": assert_rows, "make_rows": make_rows}
    return type("Tools", (), {name: staticmethod(function) for name, function in names.items()})


@pytest.fixture
def job(tmp_path):
    """A job in four shards, one of them without rows, with ids of text."""
    folder = tmp_path / "job"
    folder.mkdir()
    return Job(folder, make_rows())


@pytest.fixture
def number_job(tmp_path):
    """The same with numbers for ids."""
    folder = tmp_path / "numbers"
    folder.mkdir()
    return Job(folder, make_rows(text_ids=False))


@pytest.fixture
def ragged():
    """Rows of 0, 1, 2, 0, ... numbers by how many there are."""

    def rows(count):
        lengths = np.arange(count)[:, None] % 3
        return RaggedRows(np.arange(lengths.sum(), dtype="f4"), lengths)

    return rows


@pytest.fixture
def folder(tmp_path):
    """An empty folder for shards."""
    made: Path = tmp_path / "shards"
    made.mkdir()
    return made
