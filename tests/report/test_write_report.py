import json
import re
from collections import Counter

import h5py
import numpy as np
import pytest

from kerasext.calibration import Abstention, Calibration, PredictionSets, fit_prediction_sets
from kerasext.report import write_report
from kerasext.storage import (
    DamagedFileError,
    DenseOutput,
    PredictionFile,
    PredictionFileWriter,
    RaggedRows,
)

EVIL = "<script>alert('&\"1')</script>"
NAMES = ["cat", "dog", "emu", "fox"]


def test_the_page_needs_nothing_beside_itself(report, outputs):
    """It has no script, loads nothing, links to nothing, and has one of each id."""
    targets = np.arange(200) % 4
    images = np.zeros((200, 8, 8), "u1")
    page = report({**outputs, "targets": targets}, class_names=NAMES, images=images)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "a", "iframe", "object", "embed", "form", "base"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href"}:
                assert value.startswith(("data:image/", "#"))
    without_images = re.sub(rb"base64,[^\"]+", b"", page.bytes)
    assert not re.search(rb"https?:|//|@import|url\((?!#)", without_images)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 10


def test_it_is_for_phones_and_dark_rooms(report, outputs):
    """The page tells browsers its width, and both colour schemes."""
    page = report(outputs)
    metas = {meta.get("name"): meta.get("content") for meta in page.attributes("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"
    assert b"prefers-color-scheme: dark" in page.bytes
    assert page.attributes("html") == [{"lang": "en"}]


def test_text_of_the_file_is_text(report, outputs):
    """Whatever ids, names, metadata, model and title say, they become no markup."""
    ids = np.array([f"{EVIL}{row}" for row in range(200)], "S64")
    page = report(
        {**outputs, "ids": ids, "targets": np.arange(200) % 4, f"{EVIL[:8]}x": np.zeros(200)},
        class_names=[f"{EVIL}{name}" for name in NAMES],
        attributes={"metadata": f'{{"note": "{EVIL[:15]}"}}', "model_name": EVIL},
        prediction_metadata={"task": EVIL},
        title=f"{EVIL}title",
    )
    assert "script" not in {name for name, _ in page.tags}
    assert b"<script" not in page.bytes
    for text in (f"{EVIL}cat", f"{EVIL}title", f"{EVIL}17", f"“{EVIL}”", "<script>alert('"):
        assert text in page.text


def test_halves_of_characters(report, outputs):
    """What JSON can say and UTF-8 can't does not stop the page."""
    page = report(outputs, attributes={"metadata": '{"note": "a\\ud800b"}'})
    assert "a?b" in page.text


def test_counts(report, outputs):
    """The number of each class is that of NumPy, the most frequent first, then what has none."""
    page = report(outputs, class_names=NAMES)
    counts = np.bincount(outputs["labels"][outputs["labels"] >= 0], minlength=4)
    order = np.argsort(-counts, kind="stable")
    expected = [[NAMES[i], f"{counts[i]}", f"{counts[i] / 200:.1%}"] for i in order]
    expected.append(["no label", "1", "0.5%"])
    assert [row[:3] for row in page.table("Class", "Count")] == expected


def test_a_class_that_never_comes(report):
    """Names of classes are shown though nothing was predicted to be one of them."""
    columns = {"labels": np.zeros(3, "i4"), "confidence": np.ones(3, "f4")}
    page = report(columns, class_names=["a", "b"])
    rows = page.table("Class", "Count")
    assert [row[:3] for row in rows] == [["a", "3", "100.0%"], ["b", "0", "0.0%"]]


def test_least_confident(report, outputs):
    """The least confident rows are those of a sort, NaN before all, with names of both labels."""
    targets = np.arange(200) % 4
    page = report({**outputs, "targets": targets}, class_names=NAMES, rows=7)
    confidence = outputs["confidence"]
    order = np.argsort(np.where(np.isnan(confidence), -1, confidence), kind="stable")[:7]
    assert order[0] == 17
    names = [*NAMES, "no label"]
    assert page.table("Row", "Label", "Target") == [
        [
            str(row),
            names[outputs["labels"][row]],
            names[targets[row]],
            "NaN" if row == 17 else f"{confidence[row]:.4f}",
        ]
        for row in order
    ]


def test_ids_and_row_numbers(report, outputs):
    """Rows are named by their ids, beside their numbers in the data where these are stored."""
    ids = np.array([f"img/{row}.png" for row in range(200)], "S64")
    page = report({**outputs, "ids": ids, "row": np.arange(200) * 10}, rows=1)
    assert page.table("Id", "Row in the data", "Label")[0][:2] == ["img/17.png", "170"]


def test_numbers_stand_at_the_right(report, outputs):
    """Cells with numbers have the class that puts them there, and others don't."""
    page = report({**outputs, "ids": np.arange(200)}, rows=1)
    kinds = [attributes.get("class") for attributes in page.attributes("td")][-15:-12]
    assert kinds == [None, None, "number"]


def test_targets(report, outputs):
    """With targets there are both curves, the confusion matrix, and the figures of `evaluate`."""
    targets = np.arange(200) % 4
    page = report({**outputs, "targets": targets}, class_names=NAMES)
    assert "Reliability diagram." in page.text
    assert "Risk-coverage curve." in page.text
    accuracy = np.mean(outputs["labels"] == targets)
    assert f"Accuracy {accuracy:.1%}" in page.text
    matrix = next(table for table in page.tables if table[0][-1] == "Predicted")[2:]
    expected = np.zeros((4, 4), int)
    known = outputs["labels"] >= 0
    np.add.at(expected, (targets[known], outputs["labels"][known]), 1)
    assert [row[0] for row in matrix] == NAMES
    assert np.array([[int(cell) for cell in row[1:]] for row in matrix]).tolist() == (
        expected.tolist()
    )


def fitted(outputs, targets):
    """The metadata of a model with a calibration, sets and an abstention."""
    known = ~np.isnan(outputs["confidence"])
    sets = fit_prediction_sets(outputs["probabilities"][known], targets[known], task="classifier")
    figures = (0.9, 0.7, 0.2, 0.05)
    return {
        "task": "classifier",
        "calibration": Calibration("temperature", 0.5, 0.0, 300, *figures).as_json(),
        "prediction_sets": sets.as_json(),
        "abstention": Abstention(0.6, 0.1, 0.95, 300, 0.8, 0.4, 0.1).as_json(),
    }


def test_calibrated(report, outputs):
    """Reliability before and after, set sizes, coverage by class, and the threshold are shown."""
    targets = np.arange(200) % 4
    metadata = fitted(outputs, targets)
    page = report({**outputs, "targets": targets}, class_names=NAMES, prediction_metadata=metadata)
    assert len(page.attributes("svg")) == 4
    for text in ("not calibrated", "threshold", "without the calibration", "Prediction sets."):
        assert text in page.text
    for text in ("90.0% were promised", "at most 10.0% were promised", "Coverage of sets", "Kept"):
        assert text in page.text
    rows = page.table("Class", "Targets", "Covered")
    assert sorted(row[0] for row in rows) == sorted(NAMES)
    assert [row[1] for row in rows] == ["50"] * 4
    shares = [float(row[2].removesuffix("%")) for row in rows]
    assert shares == sorted(shares)
    assert {"style": "left:90.00%"} in page.attributes("i")
    assert "Stale." not in page.text


def test_sets_of_labels(report):
    """Of a multi-label head the coverage by label is shown, and no point of the curve."""
    p = np.random.default_rng(0).random((100, 3)).astype("f4")
    columns = {
        "probabilities": p,
        "labels": (p > 0.5).astype("i4"),
        "targets": (p > 0.6).astype(int),
    }
    columns["confidence"] = np.maximum(p, 1 - p)
    sets = PredictionSets("lac", 0.9, False, 0.3, 50, 0.9, 1.5)
    of_labels = [(0.8,) * 3, (0.4,) * 3, (0.1,) * 3]
    abstention = Abstention((0.6, 0.7, 0.8), 0.1, 0.95, 300, *of_labels)
    metadata = {"task": "multilabel", "prediction_sets": sets.as_json()}
    metadata["abstention"] = abstention.as_json()
    page = report(columns, class_names=NAMES[:3], prediction_metadata=metadata)
    assert [row[2] for row in page.table("Class", "Targets", "Covered")] == ["100.0%"] * 3
    assert "The model keeps" in page.text
    assert "chance explains" not in page.text
    assert "threshold" not in page.text.partition("Origin")[0]


def test_stale(report, outputs):
    """What was fitted on other weights is named above all figures."""
    page = report(outputs, prediction_metadata={"stale": ["calibration", "<b>"]})
    assert "Stale. Fitted on other weights or settings of the model: calibration, <b>." in page.text


def test_every_chart_has_a_caption_and_a_text(report, outputs):
    """Each picture says what it shows to those who see it, and to those who don't."""
    page = report({**outputs, "targets": np.arange(200) % 4}, class_names=NAMES)
    charts = page.attributes("svg")
    assert len(charts) == 3
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert len(page.attributes("figcaption")) == len(page.attributes("figure")) == 7


def test_unusable_targets(report, outputs):
    """Targets that are no classes are said to be so, and the rest of the page is there."""
    page = report({**outputs, "targets": np.linspace(0, 1, 200)}, class_names=NAMES)
    assert "Not compared with the targets: Targets must be whole numbers" in page.text
    assert "Confidence histogram." in page.text
    assert "Reliability" not in page.text


def test_one_hot_targets(report, outputs):
    """One-hot targets are shown as the classes that they are."""
    targets = np.eye(4, dtype="i4")[np.arange(200) % 4]
    page = report({**outputs, "targets": targets}, class_names=NAMES, rows=1)
    assert page.table("Row", "Label", "Target")[0][2] == NAMES[17 % 4]
    assert "Reliability diagram." in page.text


def test_plain_outputs(report):
    """Of outputs without labels the page says what they are, and leaves out the rest."""
    page = report({"embedding": np.zeros((5, 3), "f4"), "text": np.array(["ä"] * 5, "U64")})
    assert page.table("Output", "Shape", "Dtype") == [
        ["embedding", "5 \N{MULTIPLICATION SIGN} 3", "float32"],
        ["text", "5", "text"],
    ]
    for part in ("Confidence", "Class", "Least confident", "Compared"):
        assert part not in page.text
    assert not page.attributes("svg")


def test_confidence_alone(report):
    """A file of confidences has a histogram and the least confident rows."""
    page = report({"confidence": np.array([0.9, 0.2, 0.5], "f4")}, rows=2)
    assert page.table("Row", "Confidence") == [["1", "0.2000"], ["2", "0.5000"]]
    assert "Confidence histogram." in page.text


def test_labels_alone(report):
    """A file of labels has their counts, and no histogram."""
    page = report({"labels": np.array([3, 1, 3], "i4"), "targets": np.array([3, 1, 1])})
    assert [row[:2] for row in page.table("Class", "Count")] == [["3", "2"], ["1", "1"]]
    assert "Not compared with the targets: The file must have the output 'confidence'" in page.text
    assert "histogram" not in page.text


def test_labels_that_are_text(report):
    """Labels of an output of one's own may be strings."""
    page = report({"labels": np.array(["b", "a", "b"], "U8")})
    assert [row[:2] for row in page.table("Class", "Count")] == [["b", "2"], ["a", "1"]]


def test_several_labels_a_row(report):
    """Indicators are counted by label, and a row shows the names of those that it has."""
    probabilities = np.array([[0.9, 0.8], [0.1, 0.6], [np.nan, 0.2]], "f4")
    labels = np.array([[1, 1], [0, 1], [-1, 0]], "i4")
    confidence = np.where(labels == 0, 1 - probabilities, probabilities)
    columns = {"probabilities": probabilities, "labels": labels, "confidence": confidence}
    page = report(
        {**columns, "targets": np.array([[1, 0], [0, 1], [0, 0]])}, class_names=["x", "y"]
    )
    assert [row[:3] for row in page.table("Class")] == [
        ["y", "2", "66.7%"],
        ["x", "1", "33.3%"],
        ["no label", "1", "33.3%"],
    ]
    assert page.table("Row", "Label", "Target") == [
        ["2", "no label", "none", "NaN"],
        ["1", "y", "y", "0.6000"],
        ["0", "x, y", "x", "0.8000"],
    ]
    assert page.table("Label", "Found") == [
        ["x", "1", "0", "0", "1", "100.0%", "100.0%"],
        ["y", "1", "1", "0", "1", "50.0%", "100.0%"],
    ]


@pytest.mark.parametrize("is_ragged", [False, True])
def test_several_positions_a_row(report, is_ragged):
    """Labels of tokens are all counted; a row is as sure as their mean."""
    labels = [np.array([0, 1, 1], "i4"), np.array([1, 1, 1], "i4")]
    confidence = [np.array([0.5, 0.7, 0.9], "f4"), np.array([0.6, 0.6, 0.6], "f4")]
    if is_ragged:
        shapes = np.array([[3], [3]])
        columns = {
            "labels": RaggedRows(np.concatenate(labels), shapes),
            "confidence": RaggedRows(np.concatenate(confidence), shapes),
        }
    else:
        columns = {"labels": np.stack(labels), "confidence": np.stack(confidence)}
    page = report(columns, class_names=["noun", "verb"])
    assert [row[:2] for row in page.table("Class")] == [["verb", "5"], ["noun", "1"]]
    assert page.table("Row", "Label") == [
        ["1", "verb, verb, verb", "0.6000"],
        ["0", "noun, verb, verb", "0.7000"],
    ]


def heads(outputs):
    """The outputs of two heads."""
    labels = 1 - outputs["labels"].clip(0, 1)
    return {
        **{f"a/{name}": rows for name, rows in outputs.items()},
        "b/labels": labels,
        "b/confidence": np.full(200, 0.75, "f4"),
        "targets/a": np.arange(200) % 4,
        "targets/b": labels,
    }


def test_heads(report, outputs):
    """A page is about the head asked for, with its names and targets."""
    page = report(heads(outputs), class_names={"a": NAMES, "b": ["no", "yes"]}, head="b")
    assert "This page is about the head “b”." in page.text
    assert {row[0] for row in page.table("Class")} == {"no", "yes"}
    assert "Accuracy 100.0%" in page.text


def test_heads_without_asking_for_one(report, outputs, tmp_path):
    """Of several heads one must be chosen, and they are listed; a single one needs no choice."""
    with pytest.raises(ValueError, match=r"pass `head`, one of \['a', 'b'\]\. Received: head=''"):
        report(heads(outputs), class_names={"a": NAMES})
    assert not (tmp_path / "page.html").exists()
    one = {f"a/{name}": rows for name, rows in outputs.items()}
    assert "This page is about the head “a”." in report(one, class_names={"a": NAMES}).text


def test_groups_of_a_plain_model(report):
    """Outputs in groups without labels and confidence are no heads to choose from."""
    page = report({"encoder/mean": np.zeros((3, 2)), "decoder/image": np.zeros((3, 4))})
    assert [row[0] for row in page.table("Output")] == ["decoder/image", "encoder/mean"]


def test_the_file_is_read_once(report, outputs, monkeypatch):
    """Outputs and targets are read in one pass, whatever the page shows of them."""
    read = Counter()
    of_slice = DenseOutput._read_slice

    def counted(output, rows, rest):
        values = of_slice(output, rows, rest)
        read[output.name] += len(values)
        return values

    monkeypatch.setattr(DenseOutput, "_read_slice", counted)
    page = report({**outputs, "targets": np.arange(200) % 4})
    assert "Compared with the targets" in page.text
    assert read == dict.fromkeys(("labels", "confidence", "probabilities", "targets"), 200)


def test_a_regressor(report):
    """A head of numbers has its errors on the page."""
    prediction = np.arange(4.0)
    columns = {"prediction": prediction, "targets": prediction + np.array([1, -1, 1, -1])}
    page = report(columns, prediction_metadata={"task": "regressor"})
    assert "Mean absolute error 1" in page.text
    assert "Root mean squared error 1" in page.text
    assert "R² 0.2000" in page.text
    columns["targets"] = np.array(["a"] * 4)
    page = report(columns, prediction_metadata={"task": "regressor"})
    assert "Not compared with the targets: Targets must be numbers" in page.text


def test_a_head_that_is_passed_on(report, outputs):
    """An embedding beside a classifier is no head to choose from."""
    columns = {f"kind/{name}": rows for name, rows in outputs.items()}
    columns["embedding"] = np.zeros((200, 3), "f4")
    task = {"kind": "classifier", "embedding": None}
    page = report(columns, prediction_metadata={"task": task})
    assert "This page is about the head “kind”." in page.text


def test_path_of_the_file(path, tmp_path):
    """The file may be given by its path, as to `evaluate`."""
    small_file(path).close()
    for given in (path, str(path)):
        write_report(given, tmp_path / "page.html")
        assert b"Confidence histogram." in (tmp_path / "page.html").read_bytes()
        (tmp_path / "page.html").unlink()
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        write_report(tmp_path / "none.h5", tmp_path / "page.html")


def test_damaged_targets(report, outputs, tmp_path):
    """Targets that can't be read are an error, and not only left out of the page."""
    targets = np.random.default_rng(0).integers(0, 4, 200)
    path = report({**outputs, "targets": targets}).path.with_name("predictions.h5")
    with h5py.File(path) as file:
        place = file["targets"].id.get_chunk_info(0)
        assert file["targets"].compression == "gzip"
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="targets"):
        write_report(path, tmp_path / "other.html")


HIDDEN = "a\x1b[2Jb\x00c\x85d\u202etxt.exe\u2066e"
SHOWN = r"a\x1b[2Jb\x00c\x85d\u202etxt.exe\u2066e"


def test_control_characters_are_shown(report, outputs):
    """The page has no control character, and none that changes the direction of text."""
    names = [f"{HIDDEN}{name}" for name in ("cat", "שָׁלוֹם", "क्\u200cष", "👩\u200d🔬")]
    ids = np.array([f"{HIDDEN[:7]}{row}" for row in range(200)], "S64")
    page = report(
        {**outputs, "ids": ids},
        class_names=names,
        attributes={"model_name": HIDDEN, "metadata": json.dumps({"note": HIDDEN})},
        title=HIDDEN,
    )
    text = page.bytes.decode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    for name in names:  # what other scripts and emoji are made of stays
        assert name.replace(HIDDEN, SHOWN) in page.text
    assert f"“{SHOWN}”" in page.text


def test_no_such_head(report, outputs):
    """A head that is not there is an error which names those that are."""
    with pytest.raises(ValueError, match=r"\['a', 'b'\]\. Received: head='c'"):
        report(heads(outputs), head="c")


def test_many_classes(report):
    """Of 1,000 classes the page shows 20, and the pairs that are confused most, and says so."""
    labels = np.concatenate([np.arange(1000), np.full(50, 7)]).astype("i4")
    columns = {"labels": labels, "confidence": np.full(1050, 0.5, "f4")}
    columns["targets"] = np.where(np.arange(1050) < 1000, labels, 3)
    page = report(columns, class_names=[f"class {i}" for i in range(1000)])
    counts = page.table("Class")
    assert [row[:2] for row in counts[:3]] == [
        ["class 7", "51"],
        ["class 0", "1"],
        ["class 1", "1"],
    ]
    assert len(counts) == 20
    assert "20 most frequent of 1,000 classes; the others have 980 together." in page.text
    assert page.table("Target", "Predicted") == [["class 3", "class 7", "50", "98.0%"]]
    assert "These 1 pairs have 50 of 50 errors." in page.text
    assert len(page.bytes) < 2**20


def test_no_rows(report, outputs):
    """A file without rows has a page."""
    page = report({name: rows[:0] for name, rows in outputs.items()}, class_names=NAMES)
    assert "Rows 0" in page.text
    assert "histogram" not in page.text


def test_incomplete_files_say_so(report, outputs):
    """Of a file that is not whole the page says it at its head, and of others it does not."""
    page = report(outputs, complete=False)
    assert {"class": "warning"} in page.attributes("p")
    assert "Incomplete. The call that writes this file has not come to its end." in page.text
    assert "the 200 rows that are in it so far" in page.text
    assert "ncomplete" not in report(outputs).text


def test_origin_and_health(report, outputs):
    """The page says where the rows come from and how the run went, with units."""
    page = report(
        outputs,
        attributes={"model_name": "net", "optimizer": "adam", "metadata": '{"note": "ä"}'},
        prediction_metadata={"task": "classifier"},
    )
    for text in ("by model “net”", "optimizer adam", '"note": "ä"', '"task": "classifier"'):
        assert text in page.text
    assert re.search(r"Time [\d.]+ s .*Speed [\d,]+ rows per second", page.text)


def test_title(report, outputs):
    """The heading is the title, or else the name of the file."""
    assert report(outputs).text.startswith("predictions.h5 predictions.h5")
    assert report(outputs, title="Night run").text.startswith("Night run Night run")


def test_the_same_file_has_the_same_page(report, outputs):
    """Nothing in the page changes from one time to the next."""
    columns = {**outputs, "targets": np.arange(200) % 4}
    page = report(columns)
    again = page.path.with_name("again.html")
    with PredictionFile(page.path.with_name("predictions.h5")) as predictions:
        write_report(predictions, again)
    assert again.read_bytes() == page.bytes


def small_file(path, rows=3):
    """A file of a few confidences."""
    with_rows = PredictionFileWriter(path)
    with_rows.append({"confidence": np.full(rows, 0.5, "f4")})
    with_rows.finish()
    with_rows.close()
    return PredictionFile(path)


def test_it_replaces_a_page_only_when_it_is_whole(path, tmp_path, monkeypatch):
    """After an error the old page is there, and nothing else; else the new one."""
    page = tmp_path / "page.html"
    page.write_text("old")
    with small_file(path) as predictions:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk is full")))
            with pytest.raises(OSError, match="disk is full"):
                write_report(predictions, page)
        assert page.read_text() == "old"
        assert sorted(tmp_path.iterdir()) == [page, path]
        write_report(predictions, page)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert sorted(tmp_path.iterdir()) == [page, path]


def test_wrong_arguments(path, tmp_path):
    """A folder that is missing, the file itself and rows below 0 are refused."""
    with small_file(path) as predictions:
        with pytest.raises(FileNotFoundError, match="folder of `path` must exist"):
            write_report(predictions, tmp_path / "missing/page.html")
        with pytest.raises(IsADirectoryError, match="must not be a folder"):
            write_report(predictions, tmp_path)
        with pytest.raises(ValueError, match="must not be the file that is read"):
            write_report(predictions, path)
        with pytest.raises(ValueError, match="Received: rows=-1"):
            write_report(predictions, tmp_path / "page.html", rows=-1)
    assert [*tmp_path.iterdir()] == [path]


def test_a_closed_file(path, tmp_path):
    """A file that was closed has no report."""
    predictions = small_file(path)
    predictions.close()
    with pytest.raises(ValueError, match="closed"):
        write_report(predictions, tmp_path / "page.html")


@pytest.mark.parametrize(
    ("package", "distribution", "images"),
    [("matplotlib", "matplotlib", None), ("PIL", "pillow", np.zeros((3, 4, 4)))],
)
def test_what_is_not_installed(package, distribution, images, path, tmp_path, monkeypatch):
    """Without what it needs the error has the command that installs it."""
    for name in (package, f"{package}.Image"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    command = f"pip install {distribution}"
    with small_file(path) as predictions, pytest.raises(ImportError, match=command):
        write_report(predictions, tmp_path / "page.html", images=images)
