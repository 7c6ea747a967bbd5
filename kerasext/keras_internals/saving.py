"""What Keras reads off a class when it saves a model, and a mixin would hide from it.

Keras 3.12 to 3.15 look at two things:

- whether `get_config` is their own, by a mark on the method (`_is_default`). Only then
  `Operation.get_config` raises if the constructor needs arguments that it does not know, and adds
  those that it does: https://github.com/keras-team/keras/blob/v3.15.0/keras/src/ops/operation.py
- the signature of `__init__`. `Operation.__new__` tells by it which arguments there are, and
  `Functional.get_config` whether the config must hold the graph: one that takes `*args` and
  `**kwargs` is taken for a functional model's.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import keras

from kerasext.keras_internals.own_methods import cooperative, implementation, is_cooperative
from kerasext.keras_internals.private_classes import Functional

_MARK = "_is_default"
_marking = threading.RLock()


def config_without_mixin(
    model: keras.Model, mixin: type, inherited: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Calls the `get_config` that follows a mixin's, as if the mixin had none.

    Args:
        model: The model.
        mixin: The class whose `get_config` asks.
        inherited: The method that follows it, bound.

    Raises:
        NotImplementedError: Keras's own error, if nobody has implemented `get_config` and Keras
            can't do without.
    """
    with _marking:  # or another thread could take the mark off too early
        is_overridden = getattr(model.get_config, "__func__", None) is not vars(mixin)["get_config"]
        if is_overridden or not getattr(inherited, _MARK, False):
            return inherited()
        marked = functools.partial(model.get_config)
        setattr(marked, _MARK, True)
        vars(model)["get_config"] = marked
        try:
            return inherited()
        finally:
            del vars(model)["get_config"]


def show_constructor(cls: type) -> None:
    """Gives a class the signature of the constructor that a mixin's `__init__` would hide.

    Nothing changes if the class or one left of the mixin has its own `__init__`, or if none but
    Keras's follows.
    """
    constructor = inspect.getattr_static(cls, "__init__")
    owner, following = implementation(cls, "__init__")
    kerass = (object, keras.Model, keras.Sequential, Functional)
    if not is_cooperative(constructor) or owner in kerass:
        return
    this: Any = cls

    @cooperative
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        super(this, self).__init__(*args, **kwargs)

    shown = dict(inspect.signature(following).parameters)
    kwargs = [name for name, parameter in shown.items() if parameter.kind is parameter.VAR_KEYWORD]
    last = [shown.pop(name) for name in kwargs]
    for name, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            shown.setdefault(name, parameter)
    init.__name__, init.__qualname__ = "__init__", f"{cls.__qualname__}.__init__"
    vars(init)["__signature__"] = inspect.Signature([*shown.values(), *last])
    this.__init__ = init


def is_made_of_a_graph(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether Keras's functional constructor, which ignores unknown keywords, gets the arguments.

    As `functional_init_arguments` in Keras's `src/models/model.py` tells it.
    """
    owner, _ = implementation(cls, "__init__")
    given = len(args) + len({"inputs", "outputs"} & kwargs.keys())
    return owner in (keras.Model, Functional) and given > 1


def without_unknown(cls: type, config: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A config without those of these entries that the constructor of a class does not take."""
    constructor: Any = inspect.getattr_static(cls, "__init__")
    parameters = inspect.signature(constructor).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return config
    return {
        name: value for name, value in config.items() if name not in names or name in parameters
    }


def share_registered_name(cls: type, known: type) -> None:
    """Lets files have the name of a known class for one that is made of it.

    The name goes on to lead to the known class.
    """
    name = keras.saving.get_registered_name(known)
    package, is_registered, short = name.rpartition(">")
    if is_registered:
        keras.saving.register_keras_serializable(package, short)(cls)
        keras.saving.register_keras_serializable(package, short)(known)
