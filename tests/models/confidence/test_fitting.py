"""`calibrate`, `conformalize`, `abstain` and `tune_threshold` of a model, from arrays and files."""

import json

import h5py
import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import f1_score

from kerasext import HDF5PredictionWriter, PredictionFile, compile_predict, predict_to_hdf5
from kerasext.calibration import Calibration, fit_calibration
from kerasext.models import (
    ClassifierModel,
    MultiLabelClassifierModel,
    PredictionMixin,
    PredictionModel,
    RegressorModel,
)

CLASSES = 4
NAMES = ["ant", "bee", "cow", "dog"]


@pytest.fixture(scope="module")
def data():
    """400 rows and their classes: what a model that is too sure of itself has not seen."""
    random = np.random.default_rng(5)
    x = random.normal(size=(400, 8)).astype("float32")
    weights = random.normal(size=(8, CLASSES))
    y = (x @ weights + random.gumbel(scale=1.5, size=(400, CLASSES))).argmax(axis=-1)
    return x, y, weights


def classifier(weights, *, from_logits=False, **settings):
    """A model whose logits are three times what they should be."""
    inputs = keras.Input((8,))
    layer = keras.layers.Dense(CLASSES, activation=None if from_logits else "softmax")
    model = ClassifierModel(inputs, layer(inputs), from_logits=from_logits, **settings)
    layer.set_weights([2 * weights, np.zeros(CLASSES)])
    return model


@pytest.fixture
def model(data):
    """A classifier with names."""
    return classifier(data[2], class_names=NAMES)


def outputs_equal(a, b):
    """Whether two dicts of outputs are equal bit for bit."""
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("method", [None, "vector"])
def test_calibrate(data, method, from_logits):
    """The setting is what the arrays give, and `predict` yields what it says."""
    x, y, weights = data
    model = classifier(weights, from_logits=from_logits)
    before = model.predict(x, verbose=0)
    calibration = model.calibrate(x, y, method=method)
    assert model.calibration is calibration
    expected = fit_calibration(before["probabilities"], y, task="classifier", method=method)
    assert (calibration.method, calibration.rows) == (method or "temperature", 400)
    np.testing.assert_allclose(calibration.scale, expected.scale, rtol=1e-6)
    after = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        after["probabilities"], calibration.apply(before["probabilities"]), rtol=1e-4, atol=1e-7
    )
    if method is None:
        assert calibration.temperature > 1.1
        np.testing.assert_array_equal(after["labels"], before["labels"])
    losses = [-np.log(p["probabilities"][np.arange(400), y]).mean() for p in (before, after)]
    assert losses[1] < losses[0]
    found = calibration.negative_log_likelihood_before, calibration.negative_log_likelihood_after
    np.testing.assert_allclose(found, losses, rtol=1e-4)


def test_calibrate_again(model, data):
    """A calibration is fitted on what the model says without one, so that it is the same again."""
    x, y, _ = data
    assert model.calibrate(x, y) == model.calibrate(x, y)


@pytest.mark.parametrize("as_path", [True, False])
def test_from_a_file(model, data, path, as_path):
    """A file with targets gives what the arrays give, and is predicted no second time."""
    x, y, _ = data
    expected = model.calibrate(x, y), model.conformalize(x, y), model.abstain(x, y, risk=0.3)
    model.calibration = model.prediction_sets = model.abstention = None
    predict_to_hdf5(model, x, path, targets=y, verbose=0).close()
    model.predict = None  # nobody may
    source = str(path) if as_path else PredictionFile(path)
    found = model.calibrate(source), model.conformalize(source), model.abstain(source, risk=0.3)
    for of_file, of_arrays in zip(found, expected, strict=True):
        for name, value in of_arrays.as_json().items():
            if isinstance(value, float):
                assert of_file.as_json()[name] == pytest.approx(value, rel=1e-5), name
    assert json.loads(json.dumps(found[0].as_json())) == found[0].as_json()


def test_from_a_calibrated_file(model, data, path):
    """Of a file whose probabilities are calibrated the calibration is taken off first."""
    x, y, _ = data
    first = model.calibrate(x, y)
    sets = model.conformalize(x, y)
    predict_to_hdf5(model, x, path, targets=y, verbose=0).close()
    assert model.conformalize(path) == sets
    with pytest.warns(UserWarning, match="`prediction_sets` is dropped"):
        again = model.calibrate(path)
    assert again.temperature == pytest.approx(first.temperature, rel=1e-5)


def test_rows_of_a_file(model, data, path):
    """Some rows of a file can be taken, so that one file serves two fits."""
    x, y, _ = data
    predict_to_hdf5(model, x, path, targets=y, verbose=0).close()
    some = np.arange(0, 400, 2)
    of_file = model.calibrate(path, rows=some)
    assert of_file.rows == 200
    assert of_file.temperature == pytest.approx(model.calibrate(x[::2], y[::2]).temperature, 1e-5)
    with pytest.raises(ValueError, match=r"rows of a file; index `x` and `y`"):
        model.calibrate(x, y, rows=some)


@pytest.mark.parametrize("form", ["column", "one-hot", "names", "list"])
def test_targets(model, data, form):
    """Targets may be a column vector, one-hot, names of classes, or a list."""
    x, y, _ = data
    forms = {"column": y[:, None], "one-hot": np.eye(CLASSES)[y], "list": y.tolist()}
    given = np.array(NAMES)[y] if form == "names" else forms[form]
    assert model.calibrate(x, given) == model.calibrate(x, y)


def everything_fitted(data):
    """A model with a calibration, sets and abstention."""
    x, y, weights = data
    model = classifier(weights, class_names=NAMES)
    model.calibrate(x[:200], y[:200], method="vector")
    model.conformalize(x[200:], y[200:], confidence_level=0.8, class_conditional=True)
    model.abstain(x[200:], y[200:], risk=0.3)
    return model


def test_kept(data, tmp_path, path):
    """A saved, loaded or newly dressed model, its file and a resumed one agree bit for bit."""
    x = data[0]
    model = everything_fitted(data)
    expected = model.predict(x, batch_size=64, verbose=0)
    assert {"prediction_set", "set_size", "abstained"} < expected.keys()
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for other in (loaded, ClassifierModel.from_model(loaded), PredictionModel.from_model(model)):
        outputs_equal(other.predict(x, batch_size=64, verbose=0), expected)

    predict_to_hdf5(model, x[:192], path, batch_size=64, verbose=0).close()
    with pytest.raises(KeyboardInterrupt):
        model.predict(
            x, batch_size=64, verbose=0, callbacks=[HDF5PredictionWriter(path, mode="w"), Stop()]
        )
    writer = HDF5PredictionWriter(path, mode="resume")
    loaded.predict(x, batch_size=64, verbose=0, callbacks=[writer])
    with PredictionFile(path) as predictions:
        outputs_equal({name: output[:] for name, output in predictions.items()}, expected)
        metadata = predictions.prediction_metadata
    for name in ("calibration", "prediction_sets", "abstention"):
        assert metadata[name] == getattr(model, name).as_json()
    with h5py.File(path) as file:
        assert file["prediction_set"].dtype == bool
        assert (file["set_size"].dtype, file["abstained"].dtype) == ("int32", bool)

    model.calibration = None
    with (
        pytest.raises(ValueError, match="resume"),
        pytest.warns(UserWarning, match="fit it again"),
    ):
        model.predict(x, batch_size=64, callbacks=[HDF5PredictionWriter(path, mode="resume")])


def test_dressed_in_another_task(data):
    """What was fitted for another task is left behind; the rest is kept."""
    model = everything_fitted(data)
    other = MultiLabelClassifierModel.from_model(model)
    assert (other.calibration, other.prediction_sets, other.abstention) == (None, None, None)
    assert other.class_names == model.class_names


class Stop(keras.callbacks.Callback):
    """Interrupts after the second batch."""

    def on_predict_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


def test_compiled_path_follows(model, data):
    """`compile_predict` yields what the model says after a new calibration, and after its end."""
    x, y, _ = data
    predict = compile_predict(model)
    before = predict(x[:3])
    model.calibrate(x, y)
    after = predict(x[:3])
    outputs_equal(after, model.predict(x[:3], verbose=0))
    assert (after["confidence"] != before["confidence"]).all()
    model.calibration = None
    outputs_equal(predict(x[:3]), before)


def heads_model(weights):
    """A model with a head of each kind."""
    inputs = keras.Input((8,))
    kind = keras.layers.Dense(CLASSES, activation="softmax")
    sick = keras.layers.Dense(1, activation="sigmoid")
    signs = keras.layers.Dense(3, activation="sigmoid")
    age = keras.layers.Dense(1)
    outputs = {
        "kind": kind(inputs),
        "sick": sick(inputs),
        "signs": signs(inputs),
        "age": age(inputs),
    }
    tasks = {"kind": "classifier", "sick": "binary", "signs": "multilabel", "age": "regressor"}
    model = PredictionModel(inputs, outputs, tasks=tasks)
    kind.set_weights([2 * weights, np.zeros(CLASSES)])
    sick.set_weights([2 * weights[:, :1], np.zeros(1)])
    signs.set_weights([2 * weights[:, :3], np.zeros(3)])
    return model


def test_heads(data, tmp_path):
    """Each head is fitted on its own, by the method of its task, and kept by name."""
    x, y, weights = data
    model = heads_model(weights)
    sick, signs = (y == 0).astype(int), np.eye(CLASSES, dtype=int)[y][:, :3]
    targets = {"kind": y, "sick": sick, "signs": signs}
    for head, of_head in targets.items():
        calibration = model.calibrate(x, of_head, head=head)
        assert model.calibration[head] is calibration
        assert calibration.method == ("temperature" if head == "kind" else "platt")
        model.conformalize(x, of_head, head=head)
        model.abstain(x, of_head, head=head, risk=0.3)
    assert len(model.calibration["signs"].scale) == len(model.abstention["signs"].threshold) == 3
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    expected = model.predict(x, verbose=0)
    found = loaded.predict(x, verbose=0)
    for head in targets:
        outputs_equal(found[head], expected[head])
        assert expected[head]["prediction_set"].shape == expected[head]["probabilities"].shape
    metadata = model.prediction_metadata()
    assert {*metadata["calibration"]} == {*targets}
    assert metadata["calibration"]["kind"] == model.calibration["kind"].as_json()


@pytest.mark.parametrize("metric", ["f1", "youden"])
def test_tune_threshold(data, metric, path):
    """The threshold is the best one, is a setting, and labels a stored file alike."""
    x, y, weights = data
    model = heads_model(weights)
    sick, signs = (y == 0).astype(int), np.eye(CLASSES, dtype=int)[y][:, :3]
    predict_to_hdf5(model, x, path, targets={"sick": sick, "signs": signs}, verbose=0).close()
    for head, targets in (("sick", sick), ("signs", signs)):
        choice = model.tune_threshold(x, targets, metric=metric, head=head)
        assert model.threshold[head] == choice.threshold
        again = model.tune_threshold(path, head=head, metric=metric)
        assert again.threshold == pytest.approx(choice.threshold, rel=1e-5)
        model.threshold = {**model.threshold, head: choice.threshold}
        labels = model.predict(x, verbose=0)[head]["labels"]
        if metric == "f1":
            average = None if head == "signs" else "binary"
            np.testing.assert_allclose(
                f1_score(targets, labels, average=average), choice.value_after, rtol=1e-12
            )
        with PredictionFile(path) as predictions:
            relabelled = predictions.head(head).labels_at(choice.threshold)[:]
        assert (relabelled != labels).mean() < 0.01
    assert np.all(np.asarray(choice.value_after) >= np.asarray(choice.value_before))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_saturated_sigmoid(data, task):
    """A sigmoid that is rounded to 1 counts as near to 1 as float32 comes, in fit and step."""
    random = np.random.default_rng(0)
    logits = random.normal(scale=15, size=(400, 1)).astype("float32")
    y = (random.logistic(size=(400, 1)) < 0.3 * logits).astype(int)
    y[logits.argmax()] = 0  # the surest one is wrong
    inputs = keras.Input((1,))
    outputs = keras.layers.Activation("sigmoid")(inputs)
    model = PredictionModel(inputs, outputs, tasks=task)
    calibration = model.calibrate(logits, y if task == "multilabel" else y[:, 0])
    assert 0.2 < np.ravel(calibration.scale).item() < 0.4
    p = model.predict(np.float32([[100], [18]]), verbose=0)["probabilities"]
    assert p[0, -1] == p[1, -1] < 1


class Tokens(PredictionMixin, keras.Model):
    """A class for each of five positions."""

    tasks = "classifier"
    from_logits = True

    def call(self, inputs):
        return inputs * 2


def test_positions():
    """Tokens are calibrated together, their sets hold by row, and abstention is refused."""
    random = np.random.default_rng(2)
    logits = random.normal(scale=2, size=(120, 5, CLASSES)).astype("float32")
    y = (logits + random.gumbel(size=logits.shape)).argmax(axis=-1)
    model = Tokens()
    assert 1.6 < model.calibrate(logits, y).temperature < 2.5
    sets = model.conformalize(logits, y, confidence_level=0.8)
    assert sets.rows == 120
    chosen = model.predict(logits, verbose=0)["prediction_set"]
    covered = np.take_along_axis(chosen, y[..., None], -1)[..., 0].mean(axis=-1)
    assert covered.sum() >= 0.8 * 121 - 1 - 1e-9
    with pytest.raises(ValueError, match="position"):
        model.abstain(logits, y)


# What is refused, and what the error says.
WRONG_FILES = {
    "other weights": "of this model and these weights; predict again",
    "uint8": "full precision.*stored as uint8",
    "float16": "full precision.*stored as float16",
    "keep": "predict without `keep`",
    "incomplete": "finish it with `mode='resume'`",
    "top-k only": "must have the output 'probabilities'",
    "no targets": "must have the column 'targets'",
    "other from_logits": "from_logits",
}


@pytest.mark.parametrize("fault", WRONG_FILES)
def test_wrong_file(model, data, path, fault):
    """A file that would give a wrong calibration is refused with what to do; nothing changes."""
    x, y, _ = data
    options = {"verbose": 0} if fault == "no targets" else {"targets": y, "verbose": 0}
    if fault in {"uint8", "float16"}:
        options["dtypes"] = {"probabilities": fault}
    if fault == "keep":
        options["keep"] = lambda outputs: outputs["confidence"] < 0.9
    if fault == "top-k only":
        model.top_k = 2
        options["outputs"] = ["labels", "confidence", "top_k_labels", "top_k_probabilities"]
    if fault == "incomplete":
        writer = HDF5PredictionWriter(path, targets=y)
        with pytest.raises(KeyboardInterrupt):
            model.predict(x, batch_size=64, verbose=0, callbacks=[writer, Stop()])
    else:
        predict_to_hdf5(model, x, path, **options).close()
    if fault == "other weights":
        model.weights[1].assign(np.ones(CLASSES))
    if fault == "other from_logits":
        logits = keras.Model(model.input, model.layers[-1].output)
        logits.layers[-1].activation = keras.activations.linear
        model = ClassifierModel.from_model(logits, from_logits=True)
    for fit in (model.calibrate, model.conformalize, model.abstain):
        with pytest.raises(ValueError, match=WRONG_FILES[fault]):
            fit(path)
    assert (model.calibration, model.prediction_sets, model.abstention) == (None, None, None)


WRONG = [
    ({"y": None}, r"`y` must be the targets"),
    ({"y": lambda y: y[:-1]}, "shape of the labels"),
    ({"y": lambda y: y + 1}, "class"),
    ({"y": lambda y: y + 0.5}, "whole numbers"),
    ({"head": "kind"}, r"`head` must be a head.*Received: head='kind'"),
    ({"method": "isotonic"}, "isotonic"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_wrong_arguments(model, data, given, message):
    """Each wrong argument is one clear error, and the model stays as it was."""
    x, y, _ = data
    options = {"y": y, **given}
    if callable(options["y"]):
        options["y"] = options["y"](y)
    model.calibrate(x[:100], y[:100])
    before = model.calibration
    with pytest.raises(ValueError, match=message):
        model.calibrate(x, **options)
    assert model.calibration is before


@pytest.mark.parametrize("name", ["confidence_level", "risk"])
@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, float("nan"), "high"])
def test_wrong_levels(model, data, name, level):
    """Levels and risks are between 0 and 1, the ends left out."""
    x, y, _ = data
    fit = model.conformalize if name == "confidence_level" else model.abstain
    with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
        fit(x, y, **{name: level})


def test_too_few_rows(model, data):
    """The rows that a level needs are named."""
    x, y, _ = data
    with pytest.raises(ValueError, match="19"):
        model.conformalize(x[:18], y[:18], confidence_level=0.95)
    model.conformalize(x[:19], y[:19], confidence_level=0.95)


def test_vector_and_sets_on_the_same_rows(model, data):
    """Sets on the rows that fitted vector scaling would promise too much."""
    x, y, _ = data
    model.calibrate(x, y, method="vector")
    with pytest.raises(ValueError, match="other rows than vector scaling"):
        model.conformalize(x, y)
    model.calibrate(x, y)
    model.conformalize(x, y)  # one parameter does no harm


def test_heads_without_probabilities(data):
    """A regression head has nothing to calibrate."""
    x, y, _ = data
    inputs = keras.Input((8,))
    with pytest.raises(ValueError, match="'regressor'"):
        RegressorModel(inputs, keras.layers.Dense(1)(inputs)).calibrate(x, y)
    with pytest.raises(ValueError, match=r"one of \['kind', 'sick', 'signs'\]; the nearest is"):
        heads_model(data[2]).calibrate(x, y, head="kinds")
    with pytest.raises(ValueError, match="binary and multi-label heads"):
        classifier(data[2]).tune_threshold(x, y)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision(data, half):
    """A head that yields less than float32 is refused."""
    x, y, _ = data
    inputs = keras.Input((8,))
    output = keras.layers.Dense(CLASSES, activation="softmax", dtype=half)(inputs)
    with pytest.raises(ValueError, match="`dtype='float32'`"):
        ClassifierModel(inputs, output).calibrate(x, y)


def test_own_postprocess(data):
    """Outputs that a class adds stay, beside the calibrated ones."""
    x, y, weights = data

    class Own(ClassifierModel):
        def postprocess(self, y_pred):
            outputs = super().postprocess(y_pred)
            return {**outputs, "gini": 1 - ops.sum(outputs["probabilities"] ** 2, axis=-1)}

    inputs = keras.Input((8,))
    model = Own(inputs, keras.layers.Dense(CLASSES, activation="softmax")(inputs))
    model.layers[-1].set_weights([2 * weights, np.zeros(CLASSES)])
    model.calibrate(x, y)
    outputs = model.predict(x, verbose=0)
    expected = 1 - (outputs["probabilities"] ** 2).sum(axis=-1)
    np.testing.assert_allclose(outputs["gini"], expected, rtol=1e-5)


def test_printed(model, data):
    """What is returned says what was fitted, on how many rows, and what it changes."""
    x, y, _ = data
    calibration = model.calibrate(x, y)
    assert isinstance(calibration, Calibration)
    for said in ("temperature", "400 rows", f"{calibration.negative_log_likelihood_after:.3f}"):
        assert said in str(calibration)
