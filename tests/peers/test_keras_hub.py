"""The models of KerasHub, with random weights: each way to predict gives what `predict` gives."""

import pickle

import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.cli import main
from kerasext.inference import compile_predict, predict_to_hdf5
from kerasext.models import ClassifierModel, PredictionModel, load_model

keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # those of KerasHub are its own

BLOCKS = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64, 64, 64, 64],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
}
VOCABULARY = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "the", "cat", "dog", "runs", "sleeps"]


def photographs(count, height, width):
    """Images as a camera has them: bytes."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype("uint8")


def image_classifier():
    """A classifier of images, which are resized and scaled by its preprocessor."""
    backbone = keras_hub.models.ResNetBackbone(**BLOCKS, image_shape=(32, 32, 3))
    converter = keras_hub.layers.ResNetImageConverter(image_size=(32, 32), scale=1 / 255)
    model = keras_hub.models.ResNetImageClassifier(
        backbone=backbone,
        num_classes=3,
        activation="softmax",
        preprocessor=keras_hub.models.ResNetImageClassifierPreprocessor(converter),
    )
    return model, photographs(10, 40, 48)


def text_classifier():
    """A classifier of text, which is cut into tokens by its preprocessor."""
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=VOCABULARY)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(VOCABULARY),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=8,
    )
    model = keras_hub.models.BertTextClassifier(
        backbone=backbone,
        num_classes=2,
        activation="softmax",
        preprocessor=keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=8),
    )
    return model, np.array(["the cat sleeps", "the dog", "dog runs", "cat cat runs"] * 3)


def image_segmenter():
    """A classifier of each pixel."""
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=keras_hub.models.ResNetBackbone(**BLOCKS, image_shape=(32, 32, 3)),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[1, 2, 3],
        upsampling_size=4,
        image_shape=(32, 32, 3),
    )
    converter = keras_hub.layers.DeepLabV3ImageConverter(image_size=(32, 32), scale=1 / 255)
    model = keras_hub.models.DeepLabV3ImageSegmenter(
        backbone=backbone,
        num_classes=3,
        activation="softmax",
        preprocessor=keras_hub.models.DeepLabV3ImageSegmenterPreprocessor(converter),
    )
    return model, photographs(6, 40, 48)


def object_detector():
    """A detector, whose own `predict_step` makes boxes of what its graph yields."""
    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=keras_hub.models.ResNetBackbone(**BLOCKS, image_shape=(64, 64, 3)),
        min_level=3,
        max_level=5,
        use_p5=False,
        image_shape=(64, 64, 3),
    )
    converter = keras_hub.layers.RetinaNetImageConverter(image_size=(64, 64), scale=1 / 255)
    model = keras_hub.models.RetinaNetObjectDetector(
        backbone=backbone,
        num_classes=2,
        bounding_box_format="xyxy",
        preprocessor=keras_hub.models.RetinaNetObjectDetectorPreprocessor(converter),
    )
    return model, photographs(5, 64, 64)


MAKERS = [image_classifier, text_classifier, image_segmenter, object_detector]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__)
def task(request):
    """A model of KerasHub, data for it, and what its `predict` returns."""
    keras.utils.set_random_seed(0)
    model, x = request.param()
    return model, x, model.predict(x, verbose=0)


@pytest.fixture(scope="module")
def dressed(task):
    """The same, and the model dressed as a classifier, or a detector with heads passed on."""
    model, x, expected = task
    ready_made = PredictionModel if isinstance(expected, dict) else ClassifierModel
    dressed = ready_made.from_model(model)
    return dressed, x, dressed.predict(x, verbose=0)


def assert_equal(found, expected):
    """Asserts that two structures of outputs are equal, to the bit."""
    keras.tree.assert_same_structure(found, expected)
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)


def assert_holds(path, expected):
    """Asserts that a file is complete and has these outputs."""
    outputs = expected if isinstance(expected, dict) else {"predictions": expected}
    with PredictionFile(path) as predictions:
        assert predictions.complete
        assert set(predictions) == set(outputs)
        assert_equal({name: predictions[name][:] for name in outputs}, outputs)


@pytest.fixture(params=[False, True], ids=["task", "dressed"])
def either(request, task, dressed):
    """A model of KerasHub as it is, or dressed; data for it, and what its `predict` returns."""
    return dressed if request.param else task


def test_from_model(task, dressed):
    """The dressed model is of both classes, and says of the data what the model says."""
    (model, _, expected), (found, _, outputs) = task, dressed
    assert isinstance(found, type(model))
    if isinstance(expected, dict):
        assert isinstance(found, PredictionModel)
        assert_equal(outputs, expected)
    else:
        assert isinstance(found, ClassifierModel)
        np.testing.assert_array_equal(outputs["probabilities"], expected)
        np.testing.assert_array_equal(outputs["labels"], expected.argmax(axis=-1))
    assert all(a is b for a, b in zip(found.weights, model.weights, strict=True))


def test_writer(either, path):
    """The writer sees the steps of the Keras `predict` that the model's own calls."""
    model, x, expected = either
    model.predict(x, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    assert_holds(path, expected)


def test_predict_to_hdf5(either, path):
    """A whole job goes through the model's own `predict`, and can be taken up again."""
    model, x, expected = either
    predict_to_hdf5(model, x, path, ids=np.arange(len(x)), verbose=0).close()
    predict_to_hdf5(model, x, path, ids=np.arange(len(x)), mode="resume", verbose=0).close()
    with PredictionFile(path) as predictions:
        assert list(predictions["ids"]) == list(range(len(x)))
    path.unlink()
    predict_to_hdf5(model, x, path, verbose=0).close()
    assert_holds(path, expected)


def test_compile_predict(either):
    """The function takes raw images and text, and returns what `predict` does."""
    model, x, expected = either
    assert_equal(compile_predict(model)(x), expected)


@pytest.mark.parametrize("way", ["file", "pickle", "from_model"])
def test_carried_on(dressed, tmp_path, way):
    """A dressed model is saved with its preprocessor, pickled, and dressed again."""
    model, x, expected = dressed
    if way == "file":
        model.save(tmp_path / "model.keras")
        found = load_model(tmp_path / "model.keras")
    elif way == "pickle":
        found = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    else:
        found = PredictionModel.from_model(model)
    assert type(found) is type(model) or way == "from_model"
    assert_equal(found.predict(x, verbose=0), expected)


def test_calibrated():
    """A dressed classifier of text is calibrated on text."""
    model, x = text_classifier()
    model = ClassifierModel.from_model(model)
    before = model.predict(x, verbose=0)
    wrong = np.arange(len(x)) % 3 == 0
    model.calibrate(x, np.where(wrong, 1 - before["labels"], before["labels"]))
    outputs = model.predict(x, verbose=0)
    np.testing.assert_array_equal(outputs["labels"], before["labels"])
    assert np.abs(outputs["confidence"] - before["confidence"]).max() > 1e-4


@pytest.mark.parametrize("is_dressed", [False, True])
def test_command_line(task, dressed, tmp_path, path, is_dressed):
    """`kerasext predict` takes text and raw images from `.npy`, and suggests the task."""
    model, x, _ = dressed if is_dressed else task
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    arguments = [tmp_path / "model.keras", tmp_path / "x.npy", "-o", path, "--quiet"]
    assert main(["predict", *map(str, arguments)]) == 0
    assert_holds(path, dressed[2])


def test_ray(either, tmp_path):
    """The predictor of Ray takes rows as Ray has them, text as objects."""
    ray = pytest.importorskip("kerasext.ray")
    model, x, expected = either
    model.save(tmp_path / "model.keras")
    predictor = ray.KerasPredictor(tmp_path / "model.keras", keep_columns=())
    outputs = expected if isinstance(expected, dict) else {"predictions": expected}
    table = predictor({"x": x.astype(object) if x.dtype.kind == "U" else x})
    for name, values in outputs.items():
        column = table[name].combine_chunks()
        found = column.to_numpy_ndarray() if values.ndim > 1 else column.to_numpy()
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("rows", [list, lambda x: x.astype(object), lambda x: x.astype("T")])
def test_kinds_of_text(rows, path):
    """Text comes as a list, or an array of any dtype of NumPy."""
    model, x = text_classifier()
    expected = model.predict(x, verbose=0)
    predict_to_hdf5(model, rows(x), path, verbose=0).close()
    assert_holds(path, expected)
