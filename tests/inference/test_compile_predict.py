import gc
import itertools
import re
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasext.inference import compile_predict
from kerasext.models import (
    BinaryClassifierModel,
    ClassifierMixin,
    ClassifierModel,
    MultiLabelClassifierModel,
)

BACKEND = keras.backend.backend()
on_jax = pytest.mark.backends("jax", reason="only JAX has this")
on_torch = pytest.mark.backends("torch", reason="only torch has this")
COMPILES = BACKEND != "torch"  # which runs a model as it is


class Net(keras.Model):
    """A subclassed model that counts how often Python goes through it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)
        self.dropout = layers.Dropout(0.5)
        self.traces = 0

    def call(self, inputs, training=None):
        self.traces += 1
        return self.dropout(self.dense(inputs), training=training)


class Function(keras.Model):
    """A model that is one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


class Doubling(Net):
    """A model with a predict step of its own."""

    def predict_step(self, *args):
        result = super().predict_step(*args)
        return (result[0] * 2, *result[1:]) if BACKEND == "jax" else result * 2


class ZooNet(ClassifierMixin, Net):
    pass


class Noise(keras.Model):
    """A model that is random in `predict` too, and so changes its state there."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(5)

    def call(self, inputs):
        return inputs + keras.random.normal(ops.shape(inputs), seed=self.generator)


def functional(model_class=keras.Model, outputs=3, activation="softmax"):
    """A small functional model."""
    inputs = keras.Input((8,))
    return model_class(inputs, layers.Dense(outputs, activation=activation)(inputs))


def two_inputs(structure):
    """A functional model of two inputs, in a dict, list or tuple."""
    image, size = keras.Input((4, 2), name="image"), keras.Input((1,), name="size")
    joined = layers.Concatenate()([layers.Flatten()(image), size])
    inputs = {"image": image, "size": size} if structure is dict else structure([image, size])
    return keras.Model(inputs, {"b": layers.Dense(2)(joined), "a": [layers.Dense(1)(joined)]})


def assert_same(found, expected):
    """Checks structure, order, types and values."""
    keras.tree.assert_same_structure(found, expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
    for array, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        assert type(array) is np.ndarray
        assert array.dtype == other.dtype
        assert array.shape == other.shape
        np.testing.assert_allclose(
            array.astype("float64"), other.astype("float64"), rtol=1e-5, atol=1e-6
        )


def assert_as_predict(predict, model, rows):
    """Checks that a function says of rows what `predict` says."""
    assert_same(predict(rows), model.predict(rows, verbose=0))


MODELS = {
    "functional": functional,
    "sequential": lambda: keras.Sequential([keras.Input((8,)), layers.Dense(2)]),
    "deferred sequential": lambda: keras.Sequential([layers.Dense(2)]),
    "subclass": Net,
    "own predict_step": Doubling,
    "mixin": lambda: functional(ClassifierModel),
    "mixin of a subclass": lambda: ZooNet(from_logits=True),
    "held": lambda: ClassifierModel.from_model(Net(), from_logits=True),
    "batch normalization": lambda: keras.Sequential([layers.BatchNormalization()]),
    "nested outputs": lambda: Function(lambda x: {"b": [x, x[:, 0] > 0], "a": (ops.abs(x),)}),
    "integers": lambda: Function(lambda x: ops.argmax(x, axis=-1)),
    "half precision": lambda: keras.Sequential([layers.Dense(2, dtype="mixed_bfloat16")]),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_as_predict(make, rows):
    """Structure, dtypes and values are those of `predict`, for one row and for more."""
    model = make()
    predict = compile_predict(model)
    for count in (1, 5, 32):
        assert_as_predict(predict, model, rows[:count])


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"run_eagerly": True}][not COMPILES :])
def test_as_predict_however_the_model_is_compiled(options, rows):
    """With XLA, whose shapes are fixed, and without any compilation, the outputs are the same."""
    model = functional(ClassifierModel)
    model.compile(**options)
    predict = compile_predict(model)
    for count in (3, 1):
        assert_as_predict(predict, model, rows[:count])


@pytest.mark.parametrize("structure", [dict, list, tuple])
def test_structures_of_inputs(structure, rows):
    """Inputs are whatever structure of arrays the model takes."""
    model = two_inputs(structure)
    image, size = rows[:5].reshape(5, 4, 2), rows[:5, :1]
    x = {"size": size, "image": image} if structure is dict else structure([image, size])
    predict = compile_predict(model)
    assert_as_predict(predict, model, x)
    assert_as_predict(predict, model, keras.tree.map_structure(lambda array: array[:1], x))


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "float32", "int64", "int32", "int8", "uint8", "bool"]
)
def test_dtypes_of_inputs(dtype, rows):
    """Floats are cast and integers left alone, as `predict` does, whatever came before."""
    model = Function(lambda x: x)
    predict = compile_predict(model)
    for before in ("float32", "int16"):
        predict((rows[:2] * 100).astype(before))
        assert_as_predict(predict, model, (rows[:2] * 100).astype(dtype))


def test_tensors_as_inputs(rows):
    """Tensors of the backend are as good as NumPy arrays."""
    model = functional()
    assert_as_predict(compile_predict(model), model, ops.convert_to_tensor(rows[:3]))


@pytest.mark.backends("tensorflow", reason="no other backend has strings")
def test_strings():
    """Strings reach a lookup layer, in an array of objects or a tensor."""
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, layers.StringLookup(vocabulary=["ant", "bee"])(inputs))
    predict = compile_predict(model)
    words = np.array([["bee"], ["yak"]], dtype=object)
    for x in (words, ops.convert_to_tensor(words), words.astype("U"), words.astype("S")):
        np.testing.assert_array_equal(predict(x), [[2], [0]])


@pytest.mark.backends("jax", "torch", reason="TensorFlow has strings")
def test_text_for_models_without_strings():
    """Where models take no strings, that is said in a sentence."""
    with pytest.raises(TypeError, match="Only models on the TensorFlow backend take text"):
        compile_predict(functional())(np.array(["bee"]))


class AddIfGiven(layers.Layer):
    """Adds an input that may be missing."""

    def call(self, a, b=None):
        return a if b is None else a + b


@pytest.mark.parametrize("as_list", [True, False])
def test_optional_inputs(as_list, rows):
    """An optional input may be `None`, as in `predict`."""
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b", optional=True)
    model = keras.Model([a, b] if as_list else {"a": a, "b": b}, AddIfGiven()(a, b))
    for given in (None, rows[:3]):
        x = [rows[:3], given] if as_list else {"a": rows[:3], "b": given}
        assert_as_predict(compile_predict(model), model, x)
    predict = compile_predict(model)
    predict([rows[:3], None] if as_list else {"a": rows[:3], "b": None})
    with pytest.raises(ValueError, match="the structure and the shapes of the first one"):
        predict([rows[:3], rows[:3]] if as_list else {"a": rows[:3], "b": rows[:3]})
    with pytest.raises(ValueError, match="no arrays"):
        compile_predict(model)(None)


@pytest.mark.backends("tensorflow", reason="no other backend has ragged tensors")
def test_ragged_and_sparse_outputs_are_made_dense():
    """All outputs are arrays, also those that `predict` leaves ragged or sparse."""
    tf = pytest.importorskip("tensorflow")
    x = np.array([[1, 0], [2, 3]], "float32")
    for function in (tf.sparse.from_dense, tf.RaggedTensor.from_tensor):
        np.testing.assert_array_equal(compile_predict(Function(function))(x), x)


# Not compiled at all is False on JAX, and everything on torch.
COMPILED = {"tensorflow": [False, True], "jax": [True], "torch": [False]}[BACKEND]


@pytest.mark.parametrize("jit_compile", COMPILED)
def test_one_trace_for_any_number_of_rows(jit_compile, rows):
    """1 to 64 rows are one trace, or 7 on JAX, where shapes are fixed: 1, 2, 4, ... 64 rows.

    On torch, which compiles nothing, each call runs the Python code.
    """
    model = Net()
    model(rows[:1])
    model.compile(jit_compile=jit_compile)
    expected = model.predict(rows[:64], batch_size=64, verbose=0)
    predict = compile_predict(model)
    model.traces = 0
    for _ in range(2):
        for count in range(1, 65):
            assert_same(predict(rows[:count]), expected[:count])
    assert model.traces == (7 if BACKEND == "jax" else 1 if COMPILES else 128)


def test_outputs_belong_to_the_caller(rows):
    """Outputs may be written to, and no later call changes them or sees the change."""
    model = functional()
    predict = compile_predict(model)
    for count in (2, 3):
        first = predict(rows[:count])
        kept = first.copy()
        predict(rows[10 : 10 + count])
        np.testing.assert_array_equal(first, kept)
        first[:] = 0
        np.testing.assert_array_equal(predict(rows[:count]), kept)


def test_inputs_are_not_kept(rows):
    """The function holds on to no input, not even to the first one."""
    predict = compile_predict(functional())
    x = rows[:3].copy()
    ref = weakref.ref(x)
    predict(x)
    del x
    gc.collect()
    assert ref() is None


def test_the_model_is_left_alone(rows):
    """Nothing stands in for Keras's predict function, and no weight changes."""
    model = functional()
    weights = model.get_weights()
    compile_predict(model)(rows[:3])
    assert not hasattr(model.predict_function, "__self__")
    assert "make_predict_function" not in vars(model)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_current_weights(rows):
    """However weights are set, the next call uses them."""
    model = keras.Sequential([keras.Input((8,)), layers.BatchNormalization(), layers.Dense(8)])
    model.compile("sgd", "mse")
    predict = compile_predict(model)
    assert_as_predict(predict, model, rows[:5])

    def fit():
        model.fit(rows, rows + 3, verbose=0)

    def set_weights():
        model.set_weights([weight + 1 for weight in model.get_weights()])

    def assign():
        model.layers[1].kernel.assign(model.layers[1].kernel * 2)

    for change in (fit, set_weights, assign, fit):
        before = predict(rows[:5])
        change()
        assert not np.allclose(before, predict(rows[:5]))
        assert_as_predict(predict, model, rows[:5])


def test_current_weights_within_fit(rows):
    """A callback of `fit` sees the weights that training has come to."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8)])
    model.compile("sgd", "mse")
    predict = compile_predict(model)
    found = [predict(rows[:5])]
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: found.append(predict(rows[:5]))
    )
    model.fit(rows, rows, batch_size=35, epochs=2, verbose=0, callbacks=[callback])
    assert len(found) == 5
    assert all(not np.allclose(a, b) for a, b in itertools.pairwise(found))
    assert_same(found[-1], model.predict(rows[:5], verbose=0))


def test_trainable_does_not_matter(rows):
    """Freezing and thawing changes nothing, compiled before or after."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(2)])
    predict = compile_predict(model)
    for trainable in (True, False, True):
        model.layers[0].trainable = trainable
        for count in (1, 4):
            assert_as_predict(predict, model, rows[:count])
        model.set_weights([weight + 1 for weight in model.get_weights()])


def test_how_to_compile_is_followed(rows):
    """`compile` with another `run_eagerly` or `jit_compile` counts from the next call."""
    model = Net()
    model(rows[:1])
    predict = compile_predict(model)
    predict(rows[:2])
    for options, runs_python in [
        ({"run_eagerly": True}, True),
        *([({"jit_compile": True}, False)] if COMPILES else [({}, True)]),
        ({"run_eagerly": True}, True),
    ]:
        model.compile(**options)
        assert_as_predict(predict, model, rows[:2])
        before = model.traces
        predict(rows[:2])
        assert (model.traces > before) == runs_python


@on_torch
def test_torch_modules(rows):
    """A layer of torch, which has a mode of its own, is in that of `predict` after training too."""
    torch = pytest.importorskip("torch")
    model = keras.Sequential(
        [keras.Input((8,)), layers.TorchModuleWrapper(torch.nn.Dropout(0.5)), layers.Dense(8)]
    )
    model.compile("sgd", "mse")
    predict = compile_predict(model)
    model.fit(rows, rows, verbose=0)
    model.train()  # as a callback of `fit` sees it
    found = predict(rows[:5])
    assert_same(found, model.predict(rows[:5], verbose=0))


@on_torch
def test_reused_memory(rows):
    """Outputs that the model writes into the same tensor at each call are the caller's own."""
    torch = pytest.importorskip("torch")
    buffer = torch.zeros(3, 8)
    predict = compile_predict(Function(buffer.copy_))
    first = predict(rows[:3])
    predict(rows[3:6])
    np.testing.assert_array_equal(first, rows[:3])


def small():
    """A sequential model of two layers."""
    return keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(2)])


def normalizing():
    """A model that normalizes its inputs by rows seen."""
    layer = layers.Normalization()
    layer.adapt(np.arange(16.0).reshape(2, 8))
    return keras.Sequential([keras.Input((8,)), layer])


def enable_lora(model):
    """Gives a layer weights that are added to its own."""
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.ones((2, 8)))


def set_policy(model):
    """Changes in which precision a layer computes."""
    model.layers[0].dtype_policy = "mixed_bfloat16"


STALE = {
    "add": (small, lambda model: model.add(layers.Rescaling(3.0))),
    "pop": (small, lambda model: model.pop()),
    "quantize": (small, lambda model: model.layers[0].quantize("int8")),
    "enable_lora": (small, enable_lora),
    "dtype_policy": (small, set_policy),
    "adapt": (normalizing, lambda model: model.layers[0].adapt(np.ones((2, 8)))),
}


@pytest.mark.parametrize(("make", "change"), STALE.values(), ids=STALE.keys())
def test_stale(make, change, rows):
    """What the docstring calls stale goes on as before, until `compile_predict` is called again.

    On torch, where nothing is compiled, nothing is stale.
    """
    model = make()
    predict = compile_predict(model)
    before = predict(rows[:3])
    change(model)
    model.compile()
    if COMPILES:
        assert_same(predict(rows[:3]), before)
    else:
        assert_as_predict(predict, model, rows[:3])
    assert_as_predict(compile_predict(model), model, rows[:3])


SETTINGS = {
    "threshold": (lambda: functional(BinaryClassifierModel, 1, "sigmoid"), 1.0),
    "threshold of labels": (lambda: functional(MultiLabelClassifierModel, 3, "sigmoid"), [0, 1, 0]),
    "from_logits": (lambda: ZooNet(from_logits=True), False),
    "top_k": (lambda: functional(ClassifierModel), 2),
    "scores": (lambda: functional(ClassifierModel), ["entropy"]),
    "from_logits of a held model": (lambda: ClassifierModel.from_model(Net()), True),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=str)
def test_settings_are_followed(name, options, rows):
    """A setting of a mixin counts from the next call, and back again."""
    make, value = SETTINGS[name]
    setting = name.split()[0]
    model = make()
    model.compile(**options)
    before = getattr(model, setting)
    predict = compile_predict(model)
    first = predict(rows[:4])
    for changed in (value, before):
        setattr(model, setting, changed)
        for count in (4, 1):
            assert_as_predict(predict, model, rows[:count])
    assert_same(predict(rows[:4]), first)
    setattr(model, setting, value)
    assert str(predict(rows[:4])) != str(first)  # or nothing is shown


def test_names_are_checked_again(rows):
    """Class names that do not fit are an error at the next call, as in `predict`."""
    model = functional(ClassifierModel)
    predict = compile_predict(model)
    predict(rows[:4])
    model.class_names = ["a"]
    with pytest.raises(ValueError, match="Received: 1 names"):
        predict(rows[:4])
    model.class_names = None
    assert_as_predict(predict, model, rows[:4])


def test_old_settings_are_not_kept(rows):
    """Change after change of a setting leaves one step behind for each kind of input."""
    model = functional(BinaryClassifierModel, 1, "sigmoid")
    predict = compile_predict(model)
    for threshold in (0.1, 0.2, 0.3):
        model.threshold = threshold
        predict(rows[:4])
    assert len(predict._steps) == 1


def test_setting_that_changes_while_it_compiles(rows):
    """A setting that another thread changes in the middle of the first call counts in the next."""
    model = functional(BinaryClassifierModel, 1, "sigmoid")
    model(rows[:1])
    inherited = type(model).postprocess

    def postprocess(y_pred):
        outputs = inherited(model, y_pred)
        if model.threshold != 1.0:
            model.threshold = 1.0  # as another thread would, after it was read
        return outputs

    model.postprocess = postprocess
    predict = compile_predict(model)
    predict(rows[:4])
    assert not predict(rows[:4])["labels"].any()


def test_state_that_predict_changes():
    """A model that draws random numbers draws new ones at each call, those of `predict`."""
    x = np.zeros((4, 2), "float32")  # a power of two: filled up, more would be drawn
    model, twin = Noise(), Noise()
    predict = compile_predict(model)
    draws = [predict(x) for _ in range(3)]
    assert len({draw.tobytes() for draw in draws}) == 3
    for draw in draws:
        assert_same(draw, twin.predict(x, verbose=0))


def run_in_threads(function):
    """Runs a function of the thread's number in four threads that start at once."""
    barrier = threading.Barrier(4)

    def run(number):
        barrier.wait()
        function(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))  # raises what a thread raised


@pytest.mark.parametrize("jit_compile", COMPILED)
def test_threads(jit_compile, rows):
    """Four threads that call at the same time, the first time too, each get their own outputs."""
    model = functional(ClassifierModel)
    model.compile(jit_compile=jit_compile)
    expected = model.predict(rows, verbose=0)
    predict = compile_predict(model)

    def call(number):
        for i in (*range(number, 60), *range(number)):
            part = slice(i, i + 1 + i % 3)
            assert_same(
                predict(rows[part]), {name: array[part] for name, array in expected.items()}
            )

    run_in_threads(call)


def test_threads_compile_once(rows):
    """Of threads that call for the first time together, one compiles and the others wait."""
    model = Net()
    model(rows[:1])
    predict = compile_predict(model)
    model.traces = 0
    run_in_threads(lambda _: predict(rows[:1]))
    assert model.traces == (1 if COMPILES else 4)


@on_jax
def test_threads_draw_different_random_numbers():
    """On JAX, where the state passes through Python, no two threads start from the same one."""
    predict = compile_predict(Noise())
    x = np.zeros((1, 4), "float32")
    predict(x)
    draws = []
    run_in_threads(lambda _: draws.extend(predict(x).tobytes() for _ in range(50)))
    assert len(set(draws)) == 200


def test_no_growth(rows):
    """Call after call leaves nothing behind, with numbers of rows that change and with errors."""
    model = functional(ClassifierModel)
    predict = compile_predict(model)

    def call(times):
        for i in range(times):
            predict(rows[: 1 + i % 8])
            if i % 10 == 0:
                with pytest.raises(ValueError, match="the first one"):
                    predict(rows[:1, : i % 7])
        gc.collect()

    call(200)
    tracemalloc.start()
    try:
        call(200)
        objects = len(gc.get_objects())
        grown = []
        for _ in range(3):  # what each call leaves is there each time, what others do is not
            size = tracemalloc.get_traced_memory()[0]
            call(500)
            grown.append(tracemalloc.get_traced_memory()[0] - size)
    finally:
        tracemalloc.stop()
    assert min(grown) < 500 * 64  # bytes: less than any object that each call would leave
    assert len(gc.get_objects()) - objects < 100


def test_the_model_is_freed(rows):
    """With the function the model goes, when nobody else has it."""
    model = functional()
    predict = compile_predict(model)
    predict(rows[:1])
    ref = weakref.ref(predict)
    del predict
    gc.collect()
    assert ref() is None


WRONG = [
    (np.ones((1, 9)), ValueError, "shapes of the first one, x.shape=(None, 8); call"),
    (np.ones((1, 9)), ValueError, "Received: x.shape=(1, 9)"),
    (np.ones(8), ValueError, "Received: x.shape=(8,)"),
    ({"x": np.ones((1, 8))}, ValueError, "Received: x['x'].shape=(1, 8)"),
    (np.ones((0, 8)), ValueError, "at least one, and equally many in each array; one row is"),
    (np.ones(()), ValueError, "`x[None]`. Received: x.shape=()"),
    ([], ValueError, "Received: no arrays"),
    ([np.ones((2, 8)), np.ones((3, 8))], ValueError, "x[0].shape=(2, 8), x[1].shape=(3, 8)"),
    ([[1.0] * 8], TypeError, "make one with `np.asarray`. Received: x[0][0]=1.0"),
    (1.0, TypeError, "`x` must be a dense array, or a dict, list or tuple of them; make one"),
    ({"x": None}, ValueError, "Received: no arrays"),
]


@pytest.mark.parametrize(("x", "error", "message"), WRONG)
def test_wrong_input(x, error, message, rows):
    """An input that is not like the first one is refused by name, with the remedy."""
    model = functional()
    predict = compile_predict(model)
    predict(rows[:2])
    with pytest.raises(error, match=re.escape(message)):
        predict(x)
    assert_as_predict(predict, model, rows[:2])


@pytest.mark.parametrize("x", [np.ones((1, 9)), np.ones(8)])
def test_wrong_first_input(x, rows):
    """What the model itself refuses is its own error, with a note on `x`, and settles nothing."""
    model = functional()
    predict = compile_predict(model)
    with pytest.raises(ValueError, match="shape") as caught:
        predict(x)
    assert caught.value.__notes__[-1] == (
        "`x` must be what the model takes, with rows first; one row is `x[None]`. "
        f"Received: x.shape={x.shape}"
    )
    assert_as_predict(predict, model, rows[:2])


@pytest.mark.backends("tensorflow", reason="no other backend has ragged tensors")
def test_ragged_input():
    """A ragged tensor, which would have to be padded, is refused."""
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(TypeError, match=r"dense array.* Received: x=<tf\.RaggedTensor"):
        compile_predict(functional())(tf.ragged.constant([[1.0], [1.0, 2.0]]))


def test_outputs_without_rows():
    """Where rows have to be filled up, an output that could not be cut again is refused."""
    if not COMPILES:  # nor filled up
        assert compile_predict(Function(lambda x: ops.mean(x, axis=0)))(np.ones((3, 8))).shape == (
            8,
        )
        return
    model = Function(lambda x: ops.mean(x, axis=0))
    model.compile(jit_compile=True)
    predict = compile_predict(model)
    with pytest.raises(ValueError, match=r"compile the model with `jit_compile=False`\. Received"):
        predict(np.ones((3, 8), "float32"))


@pytest.mark.parametrize(
    ("name", "of_class"),
    [
        ("predict", True),
        ("predict", False),
        ("make_predict_function", True),
    ],
)
def test_own_methods(rows, name, of_class):
    """A method of the model's own that `predict` goes through is called at each call."""
    calls = []

    def own(self, *args, **kwargs):
        calls.append(name)
        return getattr(keras.Model, name)(self, *args, **kwargs)

    model = functional(type("Own", (keras.Model,), {name: own}) if of_class else keras.Model)
    if not of_class:
        setattr(model, name, lambda *args, **kwargs: own(model, *args, **kwargs))
    expected = model.predict(rows, verbose=0)
    predict, before = compile_predict(model), len(calls)
    for _ in range(2):
        np.testing.assert_array_equal(predict(rows), expected)
    assert len(calls) == before + 2


def test_own_predict(rows):
    """What only the model's own `predict` takes reaches it as it is, from several threads too."""

    class OfText(keras.Model):
        def predict(self, x, **kwargs):
            return super().predict(np.array([[len(text)] * 8 for text in x], "float32"), **kwargs)

    model, texts = functional(OfText), ["a", "bc", "def"]
    expected = model.predict(texts, verbose=0)
    predict = compile_predict(model)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(predict, [texts] * 8):
            np.testing.assert_array_equal(found, expected)


def test_own_predict_without_verbose():
    """An own `predict` that can't be made silent is refused before it is called."""
    own = type("Own", (keras.Model,), {"predict": lambda _, x: x})
    with pytest.raises(TypeError, match=r"add `\*\*kwargs` to it.*verbose.*`predict` of Own"):
        compile_predict(functional(own))
    with pytest.raises(TypeError, match=r"verbose.*`predict` of Own"):
        compile_predict(ClassifierModel.from_model(functional(own)))  # whose mixin shows Keras's


def test_own_predict_on_batch(rows):
    """An own `predict_on_batch`, which `predict` does not go through, changes nothing."""
    own = type("Own", (keras.Model,), {"predict_on_batch": lambda *_: 0})
    model = functional(own)
    expected = model.predict(rows, batch_size=70, verbose=0)
    np.testing.assert_array_equal(compile_predict(model)(rows), expected)


def test_step_set_on_the_model(rows):
    """A `predict_step` that was set on the model itself is compiled, as `predict` runs it."""
    model = functional()
    inherited = model.predict_step

    def predict_step(*args):
        *state, data = args  # no state but on JAX
        return inherited(*state, data / 2)

    model.predict_step = predict_step
    assert_as_predict(compile_predict(model), model, rows[:4])


def test_not_a_model():
    """Anything but a Keras model is refused at once."""
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model\. Received: model=<built"):
        compile_predict(len)  # not `print`, which Ray replaces
