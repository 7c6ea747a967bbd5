"""The models that the benchmarks predict with, and their rows."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from kerasext.models import ClassifierModel


def classifier(
    shape: tuple[int, ...],
    *hidden: Callable,
    classes: int = 10,
    model_class: type[keras.Model] = ClassifierModel,
) -> keras.Model:
    """A model of some layers and a softmax."""
    inputs = outputs = keras.Input(shape)
    for layer in hidden:
        outputs = layer(outputs)
    return model_class(inputs, layers.Dense(classes, activation="softmax")(outputs))


def mlp(width: int = 32, **options) -> keras.Model:
    """A small multilayer perceptron, so that what is around it counts."""
    return classifier((width,), layers.Dense(64, activation="relu"), **options)


def cnn() -> keras.Model:
    """A small convolutional network on images of 64 x 64 x 3."""
    return classifier(
        (64, 64, 3),
        layers.Conv2D(16, 3, strides=2, activation="relu"),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
    )


def lstm() -> keras.Model:
    """A small recurrent network on sequences of 32 x 16."""
    return classifier((32, 16), layers.LSTM(32))


def transformer() -> keras.Model:
    """One block of a transformer on sequences of 64 x 32."""

    def attend(x):
        return layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))

    def feed_forward(x):
        hidden = layers.Dense(64, activation="relu")(x)
        return layers.LayerNormalization()(x + layers.Dense(32)(hidden))

    return classifier((64, 32), attend, feed_forward, layers.GlobalAveragePooling1D())


def random_rows(rows: int, *shape: int) -> np.ndarray:
    """Input."""
    return np.random.default_rng(0).random((rows, *shape), dtype=np.float32)
