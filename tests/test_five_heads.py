"""A model with five heads, from `predict` to the report."""

import json

import numpy as np
import pytest
from five_heads import NAMES, TASKS, five_heads, rows_and_targets

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.cli import main
from kerasext.evaluation import evaluate
from kerasext.shards import index_shards

ROWS = 400
OF_CLASSES = ("kind", "sick", "signs")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """The model with a calibration, sets and an abstention for each head that can have them."""
    model = five_heads()
    x, targets = rows_and_targets(1000, seed=1)
    for head in OF_CLASSES:
        model.calibrate(x[:500], targets[head][:500], head=head)
        model.conformalize(x[500:], targets[head][500:], head=head)
        model.abstain(x[500:], targets[head][500:], head=head, risk=0.2)
    return model


@pytest.fixture(scope="module")
def folder(calibrated, tmp_path_factory):
    """Two files, of half of the rows each, with an index over them, and one file of all rows."""
    folder = tmp_path_factory.mktemp("five")
    x, targets = rows_and_targets(ROWS)
    ids = np.arange(ROWS)
    options = {"verbose": 0, "batch_size": 50}
    (folder / "shards").mkdir()
    for number, part in enumerate((slice(0, 150), slice(150, None))):
        of_part = {"ids": ids[part], "targets": {name: y[part] for name, y in targets.items()}}
        path = folder / "shards" / f"{number}.h5"
        predict_to_hdf5(calibrated, x[part], path, **of_part, **options).close()
    index_shards(folder / "shards", index="all.h5")
    path = folder / "whole.h5"
    predict_to_hdf5(calibrated, x, path, ids=ids, targets=targets, **options).close()
    return folder


@pytest.fixture(params=["whole.h5", "shards/all.h5"])
def file(request, folder):
    """The file, and the index."""
    return folder / request.param


def test_heads(file, calibrated):
    """Each head of a file and of an index has the outputs of `predict`, and what was fitted."""
    x, targets = rows_and_targets(ROWS)
    expected = calibrated.predict(x, batch_size=50, verbose=0)
    with PredictionFile(file) as predictions:
        assert sorted(predictions.heads) == ["age", "embedding", "kind", "sick", "signs"]
        for name, task in TASKS.items():
            head = predictions.head(name)
            assert head.task == task
            assert head.stale == []
            assert (head.calibration is None) is (name == "age")
            np.testing.assert_array_equal(head.targets[:], targets[name])
            for output, values in expected[name].items():
                found = head.get(output)[:]
                assert found.dtype == values.dtype
                np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)
        for name in OF_CLASSES:
            assert predictions.head(name).prediction_set.shape == (ROWS, len(NAMES[name]))
        embedding = predictions.head("embedding").prediction[:]
        np.testing.assert_allclose(embedding, expected["embedding"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", OF_CLASSES)
def test_evaluate_classes(file, head):
    """The calibration helps, sets keep their promise, and what is kept is better."""
    result = evaluate(file, head=head)
    assert result.class_names == NAMES[head]
    before = result.uncalibrated
    assert result.negative_log_likelihood < before.negative_log_likelihood - 0.1
    assert result.expected_calibration_error < before.expected_calibration_error - 0.05
    assert 0.85 < result.prediction_sets.coverage < 0.95
    assert (result.prediction_sets.expected_interval is None) is (head == "signs")
    assert 0 < result.abstention.coverage < 1
    assert result.abstention.error_rate < 1 - result.accuracy


def test_evaluate_numbers(file):
    """The regression head has the errors of its numbers."""
    assert evaluate(file, head="age").root_mean_squared_error == pytest.approx(0.1, abs=0.02)


def test_index_and_file_say_the_same(folder):
    """Figures do not depend on how many files hold the rows."""
    for head in OF_CLASSES:
        first, second = (
            evaluate(folder / name, head=head) for name in ("whole.h5", "shards/all.h5")
        )
        assert first.accuracy == second.accuracy
        assert first.brier_score == pytest.approx(second.brier_score, rel=1e-5)
        assert str(first.abstention) == str(second.abstention)


@pytest.mark.parametrize("head", TASKS)
def test_report(file, head, tmp_path):
    """A page about each head shows what there is for its task."""
    pytest.importorskip("matplotlib")
    page = tmp_path / f"{head}.html"
    assert main(["report", str(file), "-o", str(page), "--head", head]) == 0
    text = page.read_text()
    assert f"This page is about the head “{head}”." in text
    if head == "age":
        assert "Root mean squared error" in text
    else:
        assert "Coverage of sets" in text
        assert "not calibrated" in text
        assert all(name in text for name in NAMES[head])


@pytest.mark.parametrize("head", TASKS)
def test_evaluate_command(file, head, capsys):
    """`kerasext evaluate` prints the figures of a head."""
    assert main(["evaluate", str(file), "--head", head, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == ROWS
    assert ("r2" in found) is (head == "age")
    assert main(["evaluate", str(file), "--head", head]) == 0


def test_predict_command(calibrated, folder, tmp_path, capsys):
    """`kerasext predict` writes what the library writes, and the other commands read it."""
    x, _ = rows_and_targets(ROWS)
    calibrated.save(tmp_path / "five.keras")
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out.h5"
    command = ["predict", *map(str, (tmp_path / "five.keras", tmp_path / "x.npy"))]
    assert main([*command, "-o", str(out), "--batch-size", "50", "--quiet"]) == 0
    with PredictionFile(out) as found, PredictionFile(folder / "whole.h5") as expected:
        assert set(found) == {name for name in expected if not name.startswith(("targets", "ids"))}
        for name in found:
            np.testing.assert_allclose(found[name][:], expected[name][:], rtol=1e-5, atol=1e-6)
        assert found.prediction_metadata == expected.prediction_metadata
    capsys.readouterr()
    for arguments in (["info", out], ["verify", out], ["export", out, tmp_path / "out.csv"]):
        assert main([*map(str, arguments)]) == 0
    shown = capsys.readouterr().out
    assert "kind/prediction_set" in shown
    assert "sick: no, yes" in shown
