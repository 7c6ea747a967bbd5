"""A model with a head of each task and an embedding, that is too sure, and what is true."""

import keras
import numpy as np
from keras import layers

from kerasext.models import PredictionModel

TASKS = {"kind": "classifier", "sick": "binary", "signs": "multilabel", "age": "regressor"}
NAMES = {"kind": ["cat", "dog", "eel"], "sick": ["no", "yes"], "signs": ["a", "b", "c"]}
FEATURES = 8


def rows_and_targets(rows, seed=0):
    """Features, and a dict of targets by head."""
    rng = np.random.default_rng(seed)
    x = rng.normal(scale=2, size=(rows, FEATURES)).astype("float32")
    return x, {
        "kind": (x[:, :3] + rng.gumbel(size=(rows, 3))).argmax(axis=1),
        "sick": (rng.logistic(size=rows) < x[:, 3]).astype(int),
        "signs": (rng.logistic(size=(rows, 3)) < x[:, 4:7]).astype(int),
        "age": (x[:, 7] + rng.normal(scale=0.1, size=rows)).astype("float32"),
    }


def five_heads():
    """The model: it makes the logits that are true three times as large."""
    inputs = keras.Input((FEATURES,))
    heads = {
        "kind": layers.Dense(3, activation="softmax", name="kind"),
        "sick": layers.Dense(1, activation="sigmoid", name="sick"),
        "signs": layers.Dense(3, activation="sigmoid", name="signs"),
        "age": layers.Dense(1, name="age"),
        "embedding": layers.Dense(4, name="embedding"),
    }
    outputs = {name: layer(inputs) for name, layer in heads.items()}
    first = 0
    for name, factor in (("kind", 3), ("sick", 3), ("signs", 3), ("age", 1)):
        units = heads[name].units
        kernel = factor * np.eye(FEATURES)[:, first : first + units]
        heads[name].set_weights([kernel, np.zeros(units)])
        first += units
    return PredictionModel(inputs, outputs, tasks=TASKS, class_names=NAMES)
