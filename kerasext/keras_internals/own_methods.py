"""Which methods of a model are not Keras's own, past mixins that only add to them.

Keras 3.12 to 3.15 define `predict`, `predict_on_batch`, `predict_step` and `make_predict_function`
once per backend, in the trainer that `keras.Model` inherits. Neither `Sequential` nor `Functional`
overrides one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import keras

Method = TypeVar("Method", bound=Callable[..., Any])

# What `predict` and `predict_on_batch` return depends on these.
PREDICTION_METHODS = (
    "predict",
    "predict_on_batch",
    "predict_step",
    "make_predict_function",
    "__call__",  # not on JAX, where the step calls `call`
)

_COOPERATIVE = "_kerasext_cooperative"


def cooperative(method: Method) -> Method:
    """Marks a method of a mixin that calls `super()`, and so hides no method of the next class."""
    setattr(method, _COOPERATIVE, True)
    return method


def is_cooperative(method: Any) -> bool:
    """Whether `cooperative` has marked the method."""
    return getattr(method, _COOPERATIVE, False) is True


def implementation(cls: type, name: str) -> tuple[type, Any]:
    """The first method of this name that is not cooperative, and the class that defines it.

    Raises:
        AttributeError: If no class has one.
    """
    for base in cls.__mro__:
        method = vars(base).get(name)
        if method is not None and not is_cooperative(method):
            return base, method
    raise AttributeError(f"{cls.__name__} has no {name!r}")


def own_methods(model: keras.Model, *names: str) -> dict[str, type | None]:
    """Which of these methods a model does not have from Keras.

    Args:
        model: The model.
        *names: Names of methods of `keras.Model`, such as those in `PREDICTION_METHODS`.

    Returns:
        Dict from name to the class that defines the method, `None` if it was set on the model
        itself. A `make_predict_function` set on the model is left out.
    """
    found: dict[str, type | None] = {}
    for name in names:
        owner, method = implementation(type(model), name)
        # A writer sets `make_predict_function` on a model while that predicts.
        if name in vars(model) and name != "make_predict_function":
            found[name] = None
        elif method is not implementation(keras.Model, name)[1]:
            found[name] = owner
    return found


def listed(own: dict[str, type | None]) -> str:
    """What `own_methods` has found, for a message."""
    return " and ".join(
        f"`{name}` " + ("set on the model itself" if owner is None else f"of {owner.__name__}")
        for name, owner in own.items()
    )
