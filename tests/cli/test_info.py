import itertools
import json
import threading
import time

import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.cli import info
from kerasext.storage import PredictionFileWriter, RaggedRows


def step(rows):
    """A step with all kinds of outputs."""
    return {
        "head/labels": np.arange(rows, dtype="i4") % 2,
        "tokens": RaggedRows(np.arange(rows, dtype="f4"), np.ones((rows, 1), np.int64)),
        "ids": np.array([f"ö{n}" for n in range(rows)]),
    }


@pytest.fixture
def writer(path):
    """A writer of such steps."""
    writer = PredictionFileWriter(path, ragged=["tokens"])
    attributes = {"model_name": "net", "metadata": '{"run": 7, "tags": ["a"]}'}
    writer.set_description(attributes, {"head": ["[red]cat[/red]", "dog\x1b[31m"]})
    yield writer
    writer.close()


def test_table(kerasext, writer, path):
    """Outputs, rows, state, origin, health, names and metadata; text is neither markup nor code."""
    writer.append(step(3))
    writer.commit()
    code, out, err = kerasext("info", path)
    assert (code, err) == (0, "")
    for text in ("3  incomplete", "head/labels", "(3, ?)", "int32", "model_name", "net", "run"):
        assert text in out
    assert "head: [red]cat[/red], dog\\x1b[31m" in out
    assert "\x1b" not in out
    assert "rows_per_second" in out
    writer.finish()
    assert "3  complete" in kerasext("info", path)[1]


def test_json(kerasext, writer, path):
    """The same for programs."""
    writer.append(step(3))
    writer.finish()
    code, out, _ = kerasext("info", path, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["rows"] == 3
    assert found["complete"] is True
    assert found["outputs"]["tokens"] == {"shape": [3, None], "dtype": "float32"}
    assert found["class_names"] == {"head": ["[red]cat[/red]", "dog\x1b[31m"]}
    assert found["origin"]["model_name"] == "net"
    assert found["health"]["rows"] == 3
    assert found["metadata"] == {"run": 7, "tags": ["a"]}


def test_follow(kerasext, writer, path, monkeypatch):
    """A file that grows is followed until it is complete, a line for what was added."""
    monkeypatch.setattr(info, "_SECONDS", 0.01)
    writer.append(step(3))
    writer.commit()
    may_go_on = threading.Event()
    printed = print

    def print_and_tell(*values, **options):
        printed(*values, **options)
        may_go_on.set()

    monkeypatch.setattr("builtins.print", print_and_tell)

    def write():
        for _ in range(2):
            assert may_go_on.wait(30)
            may_go_on.clear()
            writer.append(step(2))
            writer.commit()
        assert may_go_on.wait(30)
        writer.finish()

    thread = threading.Thread(target=write)
    thread.start()
    code, out, _ = kerasext("info", path, "--follow", "--json")
    thread.join()
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["rows"] for line in lines] == [3, 5, 7, 7]
    assert [line["complete"] for line in lines] == [False, False, False, True]
    code, out, _ = kerasext("info", path, "--follow")
    assert code == 0
    assert out.startswith("7 rows, complete, ")


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_follow_ends_with_ctrl_c(kerasext, writer, path, monkeypatch, option):
    """Nothing went wrong when somebody has seen enough."""
    writer.append(step(3))
    writer.commit()

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    code, out, err = kerasext("info", path, "--follow", *option)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_follow_ends_after_a_timeout(kerasext, writer, path, monkeypatch, option):
    """`--timeout` ends it if a writer was killed; the clock is ours."""
    writer.append(step(3))
    writer.commit()
    seconds = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    code, out, err = kerasext("info", path, "--follow", "--timeout", "5", *option)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    code, _, err = kerasext("info", path, "--timeout", "5")
    assert code == 2
    assert "--follow" in err


def test_the_stored_dtype_is_shown(kerasext, path):
    """An output that is stored as whole numbers says so, as `print` of the file does."""
    file = PredictionFileWriter(path, dtypes={"confidence": "uint8"})
    file.append({"confidence": np.zeros(2, "float32")})
    file.finish()
    assert "float32 (stored as uint8)" in kerasext("info", path)[1]
    with PredictionFile(path) as predictions:
        assert "(2,), stored as uint8" in repr(predictions)


def test_follow_on_a_terminal(kerasext, writer, path, monkeypatch):
    """There the table is drawn again where it stands."""
    writer.append(step(3))
    writer.commit()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(info, "_SECONDS", 0)
    monkeypatch.setattr(time, "sleep", lambda _: writer.finish())
    code, out, _ = kerasext("info", path, "--follow")
    assert code == 0
    assert "incomplete" in out
    assert "\x1b[" in out
    assert out.rfind("incomplete") < out.rfind("complete") - 2


def test_a_folder(kerasext, tmp_path):
    """Of a folder each file has a line: its rows, whether it is complete, or what is wrong."""
    for name, finish in (("a.h5", True), ("b.h5", False)):
        writer = PredictionFileWriter(tmp_path / name)
        writer.append({"labels": np.arange(1200)})
        (writer.finish if finish else writer.close)()
    code, out, _ = kerasext("info", tmp_path, "--json")
    assert code == 0
    assert json.loads(out) == [
        {"name": "a.h5", "rows": 1200, "state": "complete"},
        {"name": "b.h5", "rows": 1200, "state": "incomplete"},
    ]
    (tmp_path / "b.h5").unlink()
    kerasext("index", tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    _, out, _ = kerasext("info", tmp_path)
    lines = [line.split() for line in out.splitlines()]
    assert ["a.h5", "1,200", "complete"] in lines
    assert ["index.h5", "1,200", "index"] in lines
    assert ["all", "but", "indexes", "1,200"] in lines
    assert any(line[:1] == ["notes.txt"] and "HDF5," in line for line in lines)


def test_a_folder_is_not_followed(kerasext, tmp_path):
    """That is for one file."""
    code, _, err = kerasext("info", tmp_path, "--follow")
    assert code == 2
    assert "--follow" in err
