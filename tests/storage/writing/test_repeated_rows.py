import numpy as np
import pytest
from two_outputs import check_rows, make_step, read, write

from kerasext.storage import PredictionFileWriter


def test_a_complete_file_takes_no_rows_under_resume(path):
    """Under "resume" a complete file stays as it is, whatever is appended."""
    write(path, [make_step(0, 5)])
    before = path.read_bytes()
    writer = PredictionFileWriter(path, mode="resume")
    assert writer.is_complete
    with pytest.raises(ValueError, match="the same data in the same order"):
        writer.append(make_step(5, 5))
    writer.append(make_step(0, 5))
    writer.close()
    assert path.read_bytes() == before


def test_a_complete_file_is_compared(path):
    """Under "resume" steps are compared with the first and the last rows of the last call."""
    write(path, [make_step(0, 5)])
    writer = PredictionFileWriter(path, mode="a")
    writer.append(make_step(5, 20))
    writer.finish()
    before = path.read_bytes()
    for first, last in ((make_step(5, 8), make_step(22, 3)), (make_step(5, 20), make_step(24, 1))):
        writer = PredictionFileWriter(path, mode="resume")
        assert writer.is_complete
        writer.append(first)
        writer.append(last)
        writer.commit()
        writer.finish()
        assert path.read_bytes() == before
    for steps in ([make_step(0, 5)], [make_step(6, 8)], [make_step(5, 8), make_step(21, 3)]):
        writer = PredictionFileWriter(path, mode="resume")
        *good, wrong = steps
        for step in good:
            writer.append(step)
        with pytest.raises(ValueError, match="same data in the same order"):
            writer.append(wrong)
        writer.close()
        assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_kept_rows_of_a_complete_file_are_compared(path):
    """Where some rows of the data are stored, they must be the same ones, and as many."""
    writer = PredictionFileWriter(path)
    rows = np.array([1, 2, 5, 17, 19])
    writer.append({**make_step(0, 5), "row": rows}, data_rows=20)
    writer.finish()

    def resume(first, last):
        writer = PredictionFileWriter(path, mode="resume")
        try:
            for part, data_rows in ((first, 8), (last, 4)):
                step = make_step(0, 5)
                step = {name: array[part] for name, array in {**step, "row": rows}.items()}
                writer.append(step, data_rows=data_rows)
        finally:
            writer.close()

    before = path.read_bytes()
    resume(slice(0, 3), slice(3, 5))
    for first, last in (((0, 2), (3, 5)), ((0, 3), (4, 5)), ((0, 3), (2, 5)), ((0, 4), (3, 5))):
        with pytest.raises(ValueError, match=r"same `keep`.*Stored: [23] of [84] rows"):
            resume(slice(*first), slice(*last))
    assert path.read_bytes() == before


@pytest.mark.parametrize("known", [1, 5])
def test_known_rows_that_differ(path, known):
    """An interrupted file stays byte for byte if rows that are predicted again differ."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, 20))
    writer.close()
    before = path.read_bytes()
    writer = PredictionFileWriter(path, mode="resume")
    wrong = make_step(20 - known, 9)
    wrong["a"][0, 1] += 1
    with pytest.raises(ValueError, match="other values of output 'a' in the rows before row 20"):
        writer.append(wrong, known=known)
    writer.close()
    assert path.read_bytes() == before
    writer = PredictionFileWriter(path, mode="resume")
    writer.append(make_step(20 - known, 9), known=known)
    writer.finish()
    check_rows(path, 29 - known)


def test_known_rows_are_not_compared_if_that_is_asked_for(path):
    """With `resume_check=False` the file counts it."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, 20))
    writer.close()
    writer = PredictionFileWriter(path, mode="resume", resume_check=False)
    writer.append({**make_step(15, 9), "a": np.zeros((9, 3), "f4")}, known=5)
    writer.finish()
    outputs, record = read(path)
    assert (record["rows"], record["unchecked_resumes"]) == (24, 1)
    assert outputs["b"].tolist() == list(range(24))
    np.testing.assert_array_equal(outputs["a"][:20], make_step(0, 20)["a"])
