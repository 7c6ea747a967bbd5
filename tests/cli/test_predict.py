import importlib.util
import io
import os
import re
import signal
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from kerasext import PredictionFile
from kerasext.callbacks import PredictionRun
from kerasext.evaluation import evaluate
from kerasext.inference import ImageFolder, predict_to_hdf5
from kerasext.models import ClassifierModel


def stored(path):
    """Everything in a file, by name."""
    with PredictionFile(path) as predictions:
        assert predictions.complete
        return {name: output[:] for name, output in predictions.items()}


def assert_same(path, expected):
    """Compares a file with arrays by name, to the last bit."""
    found = stored(path)
    assert set(found) == set(expected)
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.fixture
def expected(model_path, rows, tmp_path):
    """What the library stores of the rows, at a batch size of 16."""
    model = ClassifierModel.from_model(keras.saving.load_model(model_path))
    predict_to_hdf5(model, rows, tmp_path / "expected.h5", batch_size=16, verbose=0).close()
    return stored(tmp_path / "expected.h5")


def test_npy(kerasext, model_path, rows_path, path, expected):
    """The file is that of `predict_to_hdf5`; what was chosen and how it went is said on stderr."""
    code, out, err = kerasext("predict", model_path, rows_path, "-o", path, "--batch-size", 16)
    assert (code, out) == (0, "")
    assert "stored as classifier, because it ends in softmax over 4 units; --as multilabel|" in err
    assert f"{path}: 70 rows, in " in err
    assert_same(path, expected)
    with PredictionFile(path) as predictions:
        assert predictions.metadata == {"model": model_path.name, "input": rows_path.name}


def test_hdf5_with_ids_and_targets(kerasext, model_path, rows, path, tmp_path, expected):
    """Ids and targets stand beside the rows in the same file, names of classes in another."""
    names = [f"row {number}" for number in range(70)]
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["test/rows"], file["names"], file["y"] = rows, names, np.arange(70) % 4
    (tmp_path / "names.txt").write_text("cat\ndog\ngröße\nbird\n", encoding="utf-8")
    options = ["--ids", "/names", "--targets", f"{tmp_path}/data.h5:/y", "--batch-size", 16]
    options += ["--class-names", tmp_path / "names.txt", "--quiet"]
    source = f"{tmp_path}/data.h5:/test/rows"
    assert kerasext("predict", model_path, source, "-o", path, *options) == (0, "", "")
    assert_same(path, {**expected, "ids": names, "targets": np.arange(70) % 4})
    with PredictionFile(path) as predictions:
        assert list(predictions.class_names) == ["cat", "dog", "größe", "bird"]


@pytest.mark.backends("tensorflow", reason="no other backend has strings")
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_text(kerasext, path, tmp_path, suffix):
    """Text of a fixed width, the only one that these files have, is predicted."""
    words = np.array([["ant"], ["größe"], ["yak"]])
    save = np.save if suffix == "npy" else np.savez
    save(tmp_path / f"words.{suffix}", words)
    inputs = keras.Input((1,), dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=["ant", "größe"], output_mode="one_hot")
    keras.Model(inputs, lookup(inputs)).save(tmp_path / "words.keras")
    command = ["predict", tmp_path / "words.keras", tmp_path / f"words.{suffix}", "-o", path]
    assert kerasext(*command, "--quiet")[0] == 0
    assert stored(path)["predictions"].argmax(axis=-1).tolist() == [1, 2, 0]


@keras.saving.register_keras_serializable(package="test_predict")
class Scaled(keras.Model):
    """A model that prepares its data in `predict`."""

    def predict(self, x, **kwargs):
        return super().predict(keras.tree.map_structure(lambda a: a / 255, x), **kwargs)


@pytest.mark.parametrize("source", ["npy", "hdf5", "images"])
def test_own_predict(kerasext, rows, path, tmp_path, folder, source):
    """A model with a `predict` of its own is stored as what that returns, with labels or plain."""
    inputs = keras.Input((20, 30, 3) if source == "images" else (8,))
    flat = keras.layers.Flatten()(inputs)
    model = Scaled(inputs, keras.layers.Dense(4, activation="softmax")(flat))
    model.save(tmp_path / "scaled.keras")
    given, x = folder, rows
    if source == "npy":
        given = tmp_path / "x.npy"
        np.save(given, rows)
    elif source == "hdf5":
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["x"] = rows
        given = f"{tmp_path / 'x.h5'}:/x"
    else:
        x = ImageFolder(folder, image_size=(20, 30))[:]
    command = ["predict", tmp_path / "scaled.keras", given, "-o", path]
    expected = model.predict(x, verbose=0)
    code, _, err = kerasext(*command)
    assert code == 0, err
    assert "is stored as classifier" in err
    np.testing.assert_array_equal(stored(path)["probabilities"], expected)
    np.testing.assert_array_equal(stored(path)["labels"], expected.argmax(axis=-1))
    code, _, err = kerasext(*command, "--as", "plain", "--overwrite")
    assert code == 0, err
    np.testing.assert_array_equal(stored(path)["predictions"], expected)


def test_npz_for_an_own_predict(kerasext, rows, path, tmp_path):
    """A model with a `predict` of its own gets all arrays, whatever the inputs of its graph are."""

    class Joined(Scaled):
        def predict(self, x, **kwargs):
            return super().predict(x["left"] + x["right"], **kwargs)

    keras.saving.register_keras_serializable(package="test_predict")(Joined)
    inputs = keras.Input((8,), name="sum")
    model = Joined(inputs, keras.layers.Dense(2)(inputs))
    model.save(tmp_path / "joined.keras")
    np.savez(tmp_path / "x.npz", left=rows, right=rows)
    code, _, err = kerasext(
        "predict", tmp_path / "joined.keras", tmp_path / "x.npz", "-o", path, "--quiet"
    )
    assert code == 0, err
    expected = model.predict({"left": rows, "right": rows}, verbose=0)
    np.testing.assert_array_equal(stored(path)["predictions"], expected)


def test_npz_of_several_inputs(kerasext, rows, path, tmp_path):
    """Arrays go to the inputs of their names, whatever their order, and ids to none."""
    left, right = keras.Input((8,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    model = keras.Model([left, right], keras.layers.Dense(2)(joined))
    model.save(tmp_path / "two.keras")
    np.savez(tmp_path / "x.npz", right=rows[:, :3], name=np.arange(70), left=rows)
    options = ["--ids", "name", "--batch-size", 70]
    code, _, err = kerasext(
        "predict", tmp_path / "two.keras", tmp_path / "x.npz", "-o", path, *options
    )
    assert code == 0, err
    assert "is stored plain" in err
    found = stored(path)
    assert found["ids"].tolist() == list(range(70))
    np.testing.assert_array_equal(
        found["predictions"], model.predict([rows, rows[:, :3]], batch_size=70, verbose=0)
    )


def test_images(kerasext, path, folder, tmp_path, save_model):
    """Images of a folder are predicted in the order of their paths, which are the ids."""
    save_model(tmp_path / "images.keras", (32, 48, 3))
    options = ["--batch-size", 8, "--outputs", "labels,probabilities"]
    code, _, err = kerasext("predict", tmp_path / "images.keras", folder, "-o", path, *options)
    assert code == 0, err
    images = ImageFolder(folder, image_size=(32, 48))
    names, x = images.paths, images[:]
    model = ClassifierModel.from_model(keras.saving.load_model(tmp_path / "images.keras"))
    outputs = model.predict(x, batch_size=8, verbose=0)
    assert len(np.unique(outputs["probabilities"], axis=0)) > 50
    found = stored(path)
    assert set(found) == {"ids", "labels", "probabilities"}
    assert found["ids"].tolist() == names
    np.testing.assert_allclose(found["probabilities"], outputs["probabilities"], rtol=1e-5)


def test_image_size(kerasext, path, folder, tmp_path, save_model):
    """A model that takes images of any size is told one."""
    save_model(tmp_path / "any.keras", (None, None, 3))
    command = ["predict", tmp_path / "any.keras", folder, "-o", path]
    code, _, err = kerasext(*command)
    assert code == 2
    assert "--image-size HEIGHTxWIDTH" in err
    assert kerasext(*command, "--image-size", "24x40")[0] == 0
    assert stored(path)["labels"].shape == (60,)


def test_interrupted_and_resumed(kerasext, model_path, rows_path, path, expected, monkeypatch):
    """After Ctrl-C the exit code is 130, and the command that is printed goes on."""
    command = ["predict", str(model_path), str(rows_path), "-o", str(path), "--batch-size", "16"]

    def stop_at(number):
        """Interrupts the main thread when so many batches were predicted."""
        steps = []
        original = PredictionRun.on_step_outputs

        def on_step_outputs(self, *args):
            original(self, *args)
            steps.append(1)
            if len(steps) == number:
                signal.raise_signal(signal.SIGINT)

        patch.setattr(PredictionRun, "on_step_outputs", on_step_outputs)

    with monkeypatch.context() as patch:
        stop_at(3)
        code, out, err = kerasext(*command)
    assert (code, out) == (130, "")
    line = f"kerasext {' '.join(command)} --resume"
    assert f"48 rows are safe in {path}.\nTo go on: {line}\n" in err
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (48, False)
    code, _, err = kerasext(*line.split()[1:])
    assert code == 0, err
    assert_same(path, expected)
    code, _, err = kerasext(*line.split()[1:])
    assert code == 0
    assert err.endswith(
        f"{path} is complete: its first and last step were computed again and are the same.\n"
    )
    other = rows_path.with_name("other.npy")
    for rows, message in ((np.load(rows_path)[::-1], "same order"), (np.zeros((7, 8)), "7 rows")):
        np.save(other, rows)
        code, _, err = kerasext("predict", model_path, other, "-o", path, "--resume")
        assert code == 2
        assert message in err
        assert_same(path, expected)


def test_bad_image_late(kerasext, path, folder, tmp_path, save_model):
    """A bad image ends the run with its name; the command that is printed goes on without it."""
    save_model(tmp_path / "images.keras", (256, 256, 3))  # of which a few are read at a time
    names = ImageFolder(folder, image_size=(8, 8)).paths
    bad = folder / "flowers/00049.jpg"
    bad.write_bytes(bad.read_bytes()[:-100])
    at = names.index("flowers/00049.jpg")
    command = ["predict", tmp_path / "images.keras", folder, "-o", path, "--batch-size", 4]
    code, _, err = kerasext(*command)
    assert code == 2
    assert "error: 'flowers/00049.jpg' can't be read:" in err
    safe = at // 4 * 4
    assert f"{safe} rows are safe in {path}.\n" in err
    assert "Traceback" not in err
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (safe, False)
        assert predictions["ids"][:].tolist() == names[:safe]
    (line,) = (line for line in err.splitlines() if line.startswith("To go on: kerasext "))
    assert line.endswith(" --skip-bad --resume")
    code, _, err = kerasext(*line.split()[4:])
    assert code == 0, err
    assert "skipped: 1 of 60 images can't be read:\n  flowers/00049.jpg: " in err
    names.remove("flowers/00049.jpg")
    assert stored(path)["ids"].tolist() == names


def test_many_bad_images(kerasext, path, folder, tmp_path, save_model):
    """The first image that can't be read ends the run; all are listed if they are skipped."""
    save_model(tmp_path / "images.keras", (32, 32, 3))
    names = ImageFolder(folder, image_size=(8, 8)).paths
    (tmp_path / "targets.txt").write_text("\n".join(map(str, range(60))))
    for name in names[5:17]:
        (folder / name).write_text("no image")
    command = ["predict", tmp_path / "images.keras", folder, "-o", path]
    code, _, err = kerasext(*command)
    assert code == 2
    assert f"error: '{names[5]}' can't be read: it is no image\n" in err
    assert "--skip-bad" in err
    assert not path.exists()
    code, _, err = kerasext(*command, "--skip-bad", "--targets", tmp_path / "targets.txt")
    assert code == 0, err
    assert "skipped: 12 of 60 images can't be read:\n" in err
    assert all(f"  {name}: it is no image\n" in err for name in names[5:17])
    found = stored(path)
    assert found["ids"].tolist() == names[:5] + names[17:]
    assert found["targets"].tolist() == [*range(5), *range(17, 60)]


def test_only_bad_images(kerasext, tmp_path, path, save_model):
    """Nothing is left to predict where no image can be read."""
    save_model(tmp_path / "images.keras", (32, 32, 3))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_text("no image")
    code, _, err = kerasext(
        "predict", tmp_path / "images.keras", tmp_path / "photos", "-o", path, "--skip-bad"
    )
    assert code == 2
    assert "images that can be read; 'a.png' can't: it is no image" in err


@pytest.mark.parametrize(
    ("names", "order"),
    [(None, ["china", "flowers"]), ("flowers,china", ["flowers", "china"])],
)
def test_targets_of_folders(kerasext, path, folder, tmp_path, save_model, names, order):
    """The folders are the targets, numbered in the order of the names; `evaluate` knows both."""
    save_model(tmp_path / "images.keras", (32, 48, 3), units=2)
    command = ["predict", tmp_path / "images.keras", folder, "-o", path, "--targets", "folders"]
    code, _, err = kerasext(*command, *(["--class-names", names] if names else []))
    assert code == 0, err
    with PredictionFile(path) as predictions:
        assert list(predictions.class_names) == order
        folders = [name.split("/")[0] for name in predictions["ids"][:]]
        assert predictions["targets"][:].tolist() == [order.index(name) for name in folders]
        result = evaluate(predictions)
        assert result.accuracy == evaluate(predictions, targets=folders).accuracy


def test_targets_of_folders_in_the_order_of_the_model(kerasext, path, folder, tmp_path, save_model):
    """A model that knows the names of its classes gives their order."""
    save_model(tmp_path / "images.keras", (32, 48, 3), units=3)
    plain = keras.saving.load_model(tmp_path / "images.keras")
    names = ["flowers", "none", "china"]
    ClassifierModel.from_model(plain, class_names=names).save(tmp_path / "named.keras")
    command = ["predict", tmp_path / "named.keras", folder, "-o", path, "--targets", "folders"]
    code, _, err = kerasext(*command)
    assert code == 0, err
    with PredictionFile(path) as predictions:
        assert list(predictions.class_names) == names
        assert set(predictions["targets"][:].tolist()) == {0, 2}


def test_targets_of_folders_of_a_plain_model(kerasext, path, folder, tmp_path, save_model):
    """A model without classes keeps the numbers of the folders."""
    save_model(tmp_path / "images.keras", (32, 48, 3), units=1, activation=None)
    command = ["predict", tmp_path / "images.keras", folder, "-o", path, "--targets", "folders"]
    code, _, err = kerasext(*command)
    assert code == 0, err
    assert stored(path)["targets"].tolist() == [0] * 30 + [1] * 30


def test_wrong_targets_of_folders(kerasext, path, folder, tmp_path, save_model):
    """Folders that are not the classes, and images outside of them, are said at once."""
    save_model(tmp_path / "images.keras", (32, 48, 3))
    command = ["predict", tmp_path / "images.keras", folder, "-o", path, "--targets", "folders"]
    code, _, err = kerasext(*command)
    assert code == 2
    assert "--class-names must name each of the 4 classes" in err
    code, _, err = kerasext(*command, "--class-names", "china,cat,dog,bird")
    assert code == 2
    assert "--class-names must have the name of each folder" in err
    assert "without a name: ['flowers']" in err
    Image.new("RGB", (8, 8)).save(folder / "new.png")
    code, _, err = kerasext(*command)
    assert code == 2
    assert "each image in a folder with the name of its class" in err
    assert "'new.png'" in err
    assert not path.exists()


def test_output_that_exists(kerasext, model_path, rows_path, path, expected):
    """What exists is left alone unless it is to be replaced."""
    path.write_text("precious")
    command = ["predict", model_path, rows_path, "-o", path, "--batch-size", 16]
    code, _, err = kerasext(*command)
    assert code == 2
    assert err == (
        f"kerasext predict: error: {str(path)!r} exists; --resume goes on with it, --overwrite "
        "replaces it.\n"
    )
    assert path.read_text() == "precious"
    assert kerasext(*command, "--overwrite")[0] == 0
    assert_same(path, expected)


def test_input_is_not_overwritten(kerasext, model_path, tmp_path, rows):
    """The file that is read is never replaced."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = rows
    content = (tmp_path / "data.h5").read_bytes()
    command = ["predict", model_path, f"{tmp_path}/data.h5:/x", "-o", tmp_path / "data.h5"]
    code, _, err = kerasext(*command, "--overwrite")
    assert code == 2
    assert "OUT must not be what is read" in err
    assert (tmp_path / "data.h5").read_bytes() == content


def test_models_that_cannot_be_loaded(kerasext, rows_path, path, tmp_path):
    """A file that is no model, or has code of its own, is refused with one message."""
    inputs = keras.Input((8,))
    unsafe = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    unsafe.save(tmp_path / "unsafe.keras")
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "old.h5").write_text("no model")
    for name, text in {
        "missing.keras": "There is no model",
        "old.h5": r"must be a .keras file",
        "text.keras": "can't be loaded",
        "unsafe.keras": "can't be loaded",
    }.items():
        code, _, err = kerasext("predict", tmp_path / name, rows_path, "-o", path)
        assert code == 2
        assert err.startswith("kerasext predict: error: ")
        assert text in err
        assert "Traceback" not in err
    assert not path.exists()


def test_bad_rows(kerasext, model_path, rows, path, tmp_path):
    """Rows that the model does not take, and ids of another number, are said before the file is."""
    np.save(tmp_path / "wide.npy", np.ones((4, 9), np.float32))
    code, _, err = kerasext("predict", model_path, tmp_path / "wide.npy", "-o", path)
    assert code == 2
    expected = "The model takes rows of the shape (8,). Received: rows of the shape (9,)\n"
    assert err == f"kerasext predict: error: {expected}"
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "ids.txt").write_text("a\nb\n")
    options = ["-o", path, "--ids", tmp_path / "ids.txt"]
    code, _, err = kerasext("predict", model_path, tmp_path / "rows.npy", *options)
    assert code == 2
    assert "--ids must have one for each row" in err
    assert "safe" not in err
    assert not path.exists()


def test_folder_for_a_model_of_rows(kerasext, model_path, folder, path):
    """A model that takes no images says what it takes."""
    code, _, err = kerasext("predict", model_path, folder, "-o", path)
    assert code == 2
    assert "(height, width, channels). Received: inputs of the shapes [(8,)]" in err


def test_another_model_does_not_resume(kerasext, model_path, rows_path, path, tmp_path, save_model):
    """Rows of another model are not added, and the message is the library's."""
    command = ["-o", path, "--batch-size", 16]
    assert kerasext("predict", model_path, rows_path, *command)[0] == 0
    save_model(tmp_path / "other.keras", (8,), units=5)
    code, _, err = kerasext("predict", tmp_path / "other.keras", rows_path, *command, "--resume")
    assert code == 2
    assert "model" in err.partition("error:")[2]
    assert "To go on" not in err


def test_palette_and_gray(kerasext, path, tmp_path, save_model):
    """Images in gray and with a palette go to a model of gray images."""
    save_model(tmp_path / "gray.keras", (8, 8, 1))
    (tmp_path / "scans").mkdir()
    gray = Image.fromarray(np.arange(0, 256, 4, np.uint8).reshape(8, 8))
    gray.save(tmp_path / "scans/a.png")
    gray.convert("P").save(tmp_path / "scans/b.gif")
    arguments = ["predict", tmp_path / "gray.keras", tmp_path / "scans", "-o", path]
    code, _, err = kerasext(*arguments)
    assert code == 0, err
    first, second = stored(path)["probabilities"]
    np.testing.assert_array_equal(first, second)


def test_image_names_of_any_bytes(kerasext, path, tmp_path, save_model):
    """Images whose names are not UTF-8 have escaped ids, by which a report finds them again."""
    save_model(tmp_path / "gray.keras", (8, 8, 1))
    (tmp_path / "scans").mkdir()
    names = [b"caf\xe9.png", "größe.png".encode(), b"plain.png", b"back\\x.png"]
    for number, name in enumerate(names):
        buffer = io.BytesIO()
        Image.new("L", (8, 8), 50 * number).save(buffer, "PNG")
        try:
            with open(os.fsencode(tmp_path / "scans") + b"/" + name, "wb") as file:  # noqa: PTH123
                file.write(buffer.getvalue())
        except OSError:
            pytest.skip("the file system takes UTF-8 only")
    command = ["predict", tmp_path / "gray.keras", tmp_path / "scans", "-o", path]
    code, _, err = kerasext(*command)
    assert code == 0, err
    ids = ["back\\x.png", r"caf\xe9.png", "größe.png", "plain.png"]
    assert stored(path)["ids"].tolist() == sorted(ids)
    report = ["report", path, "-o", tmp_path / "r.html", "--images", tmp_path / "scans"]
    assert kerasext(*report)[0] == 0
    assert (tmp_path / "r.html").read_text().count("<img ") == 4
    with open(os.fsencode(tmp_path / "scans") + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123
        file.write(b"no image")
    code, _, err = kerasext(*command, "--overwrite")
    assert code == 2
    assert "'caf\\xe9.png' can't be read: it is no image" in err


def test_without_pillow(kerasext, path, folder, tmp_path, save_model, monkeypatch):
    """Without Pillow a folder of images is refused once, with the command that installs it."""
    save_model(tmp_path / "images.keras", (32, 32, 3))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    for options in ([], ["--skip-bad"]):
        command = ["predict", tmp_path / "images.keras", folder, "-o", path, *options]
        code, _, err = kerasext(*command)
        assert code == 2
        assert err.count("\n") == 1
        assert "pip install pillow" in err


@pytest.mark.backends("tensorflow", reason="only it exports a SavedModel without more packages")
def test_exported_folder(kerasext, model_path, rows_path, rows, path, tmp_path):
    """A model that was exported is told from one that is missing; what is advised works."""
    keras.saving.load_model(model_path).export(tmp_path / "exported", verbose=False)
    code, _, err = kerasext("predict", tmp_path / "exported", rows_path, "-o", path)
    assert code == 2
    assert f"Received: the folder {str(tmp_path / 'exported')!r}" in err
    advice = re.search(r"keras\.Sequential\(\[.*?\]\)", err)[0]
    names = {"keras": keras, "row_shape": (8,), "MODEL": str(tmp_path / "exported")}
    model = eval(advice, names)  # noqa: S307 - of the message
    with predict_to_hdf5(model, rows, path, verbose=0) as predictions:
        expected = keras.saving.load_model(model_path).predict(rows, verbose=0)
        np.testing.assert_allclose(predictions["predictions"][:], expected, rtol=1e-5)


CUSTOM = """
import keras

from kerasext.models import ClassifierMixin


class Net(ClassifierMixin, keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.dense(x)


@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def shifted(x):
    return x + 1
"""


@pytest.fixture
def custom(tmp_path, monkeypatch):
    """The current folder has a module of custom classes, which nobody can import elsewhere."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "custom_classes", raising=False)
    (tmp_path / "cwd/custom_classes.py").write_text(CUSTOM)
    spec = importlib.util.spec_from_file_location("custom_classes", "custom_classes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keras.saving.get_custom_objects().pop("mine>Twice")
    yield module
    keras.saving.get_custom_objects().pop("mine>Twice", None)


@pytest.mark.parametrize("kind", ["mixin", "layer", "function"])
def test_custom_classes(kerasext, rows, rows_path, path, custom, kind):
    """`--import` loads models of custom classes, registered or not, from the current folder."""
    if kind == "mixin":
        model = custom.Net(class_names=list("abc"))
        model.predict(rows, verbose=0)
    elif kind == "layer":
        model = keras.Sequential([keras.Input((8,)), custom.Twice(), keras.layers.Dense(2)])
    else:
        layer = keras.layers.Dense(2, activation=custom.shifted)
        model = keras.Sequential([keras.Input((8,)), layer])
    model.save("model.keras")
    command = ["predict", "model.keras", rows_path, "-o", path, "--batch-size", 16]
    code, _, err = kerasext(*command)
    assert code == 2
    assert re.search(r"Could not locate (class|function) '\S+'; --import MODULE imports the", err)
    assert max(map(len, err.splitlines())) < 300  # without the config of the model
    code, _, err = kerasext(*command, "--import", "json", "--import", "custom_classes")
    assert code == 0, err
    expected = model.predict(rows, batch_size=16, verbose=0)
    expected = expected if isinstance(expected, dict) else {"predictions": expected}
    found = stored(path)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


def test_modules_that_are_not_there(kerasext, model_path, rows_path, path, custom, tmp_path):
    """A module that is missing is exit code 2; one that fails, exit code 1 with its error."""
    command = ["predict", model_path, rows_path, "-o", path, "--import"]
    for name in ("missing_module", "custom_classes.missing"):
        code, _, err = kerasext(*command, name)
        assert code == 2
        assert f"Received: --import {name}\n" in err
    assert kerasext(*command, "./custom_classes.py")[0] == 2
    (tmp_path / "cwd/needs_more.py").write_text("import missing_module")
    code, _, err = kerasext(*command, "needs_more")
    assert code == 1
    assert err == "kerasext predict: error: No module named 'missing_module'\n"


def test_rows_of_other_shapes(kerasext, rows, path, tmp_path):
    """Keras adds or drops a last axis of length 1; other shapes are refused before predicting."""
    inputs = [keras.Input((1,), name="one"), keras.Input((None, 2), name="steps")]
    total = keras.layers.Add()([inputs[0], keras.layers.GlobalMaxPooling1D()(inputs[1])])
    keras.Model(inputs, total).save(tmp_path / "model.keras")
    command = ["predict", tmp_path / "model.keras", tmp_path / "x.npz", "-o", path]
    steps = np.ones((5, 3, 2), "f4")
    for one in (np.ones(5, "f4"), np.ones((5, 1), "f4"), np.ones((5, 1, 1), "f4")):
        np.savez(tmp_path / "x.npz", steps=steps, one=one)
        code, _, err = kerasext(*command, "--overwrite")
        assert code == 0, err
        assert stored(path)["predictions"].shape == (5, 2)
    np.savez(tmp_path / "x.npz", steps=steps[..., :1], one=one)
    code, _, err = kerasext(*command, "--overwrite")
    assert code == 2
    assert "shape (None, 2) for its input 'steps'. Received: rows of the shape (3, 1)" in err


@pytest.mark.slow
def test_quiet_process(model_path, rows_path, path):
    """With --quiet nothing at all is written while the backend is imported, and errors are."""
    command = [sys.executable, "-m", "kerasext", "predict", str(model_path), str(rows_path)]
    command += ["-o", str(path), "--quiet"]
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    options = {"capture_output": True, "text": True, "env": env}
    ended = subprocess.run(command, check=False, **options)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    model_path.write_text("no model")
    command.append("--overwrite")
    ended = subprocess.run(command, check=False, **options)
    assert ended.returncode == 2
    assert "can't be loaded" in ended.stderr
    assert ended.stderr.startswith("kerasext predict: error: ")
