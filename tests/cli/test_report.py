import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter


@pytest.fixture
def file(path):
    """What a classifier said of 30 rows."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 30).astype("f4")
    writer = PredictionFileWriter(
        path,
        class_names=["cat", "dog", "<b>"],
        attributes={"prediction_metadata": '{"task": "classifier"}'},
    )
    writer.append(
        {
            "probabilities": probabilities,
            "labels": probabilities.argmax(-1).astype("i4"),
            "confidence": probabilities.max(-1),
            "ids": np.array([f"photo {n}.jpg" for n in range(30)]),
        }
    )
    writer.finish()
    return path


def test_report(kerasext, file, tmp_path):
    """The page is written where it is asked for, with as many rows, and replaced only if asked."""
    pytest.importorskip("kerasext.report")
    out = tmp_path / "report.html"
    command = ["report", file, "-o", out, "--rows", 7, "--title", "Cats"]
    code, _, err = kerasext(*command)
    assert code == 0, err
    page = out.read_text(encoding="utf-8")
    assert "Cats" in page
    assert page.count("photo ") >= 7
    code, _, err = kerasext(*command)
    assert code == 2
    assert "exists; --overwrite replaces it" in err
    assert kerasext(*command, "--overwrite")[0] == 0


def test_folder_of_images(kerasext, file, tmp_path):
    """A folder that is not there is said at once."""
    command = ["report", file, "-o", tmp_path / "r.html", "--images", tmp_path / "photos"]
    code, _, err = kerasext(*command)
    assert code == 2
    assert "There is no folder" in err
