import keras
import pytest

from kerasext.models.fingerprint import fingerprint


@pytest.fixture
def build():
    """A function that builds a model of a given dtype, with weights from a given seed."""

    def build(seed=0, dtype="float32", bias=True):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(5, use_bias=bias, dtype=dtype),
                keras.layers.BatchNormalization(dtype=dtype),
            ]
        )

    return build


NO_FLOAT64 = pytest.mark.backends("tensorflow", "torch", reason="JAX has no float64 by default")
DTYPES = [
    "float32",
    "float16",
    "bfloat16",
    "mixed_bfloat16",
    pytest.param("float64", marks=NO_FLOAT64),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_weights_have_the_same_fingerprint(build, dtype):
    """A model that was built again, under other automatic names, has the same fingerprint."""
    first, second = build(dtype=dtype), build(dtype=dtype)
    assert first.name != second.name
    assert fingerprint(first, "s") == fingerprint(second, "s")


def test_what_makes_another_model(build):
    """Other weights, settings, shapes or dtypes have another fingerprint."""
    model = build()
    prints = [
        fingerprint(model, "a"),
        fingerprint(model, "b"),
        fingerprint(build(seed=1), "a"),
        fingerprint(build(bias=False), "a"),
        fingerprint(build(dtype="float16"), "a"),
    ]
    model.layers[-1].moving_mean.assign_add([0, 0, 1e-6, 0, 0])
    prints.append(fingerprint(model, "a"))
    assert len(set(prints)) == len(prints)


def test_a_model_without_weights_has_one():
    """A model of no weights has a fingerprint of its settings."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Softmax()(inputs))
    assert fingerprint(model, "a") != fingerprint(model, "b")
