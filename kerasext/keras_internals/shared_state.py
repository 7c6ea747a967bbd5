"""An object of another class for a model, with the same layers and variables.

Keras 3.12 to 3.15 keep the state of a model in its `__dict__`. Two entries belong to the object:
`Layer.__new__` wraps its `build` and `quantize`. `Model.__init__` begins with that of its first
base, the trainer, which sets what `compile` and the loops use.
"""

from __future__ import annotations

from typing import Any, TypeVar

import keras

Made = TypeVar("Made", bound=keras.Model)

_OF_THE_OBJECT = ("build", "quantize")
_OF_COMPILE = ("optimizer", "_compile_config", "make_predict_function")


def sharing_state(cls: type[Made], model: keras.Model) -> Made:
    """Makes an object that shares the state of a model, and is not compiled.

    Args:
        cls: Class of the object. Its constructor is not called.
        model: A model of one of the bases of `cls`.

    Returns:
        Object with the layers, variables and attributes of the model. Attributes that are set on
        one of the two later are not set on the other.
    """
    made: Made = keras.Model.__new__(cls)
    state = vars(made)
    own = {name: state[name] for name in _OF_THE_OBJECT}
    state |= {
        name: value
        for name, value in vars(model).items()
        if name not in _OF_COMPILE and not name.startswith("_kerasext")  # `PredictFunctions`
    }
    state |= own
    trainer: Any = keras.Model.__bases__[0]
    strategy = getattr(model, "_distribute_strategy", None)
    trainer.__init__(made)
    if strategy is not None:  # else TensorFlow's trainer has the one in whose scope this is called
        made._distribute_strategy = strategy
    return made
