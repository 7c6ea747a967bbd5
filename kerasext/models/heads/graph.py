"""What the graph of a functional or sequential model tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras.activations import linear

from kerasext.keras_internals import (
    Functional,
    graph_of,
    has_automatic_name,
    made_by,
)


def functional(model: keras.Model) -> Any | None:
    """The model that holds the graph, or `None` where Python code decides what is computed."""
    if isinstance(model, keras.Sequential):
        return graph_of(model) if _is_inherited("call", model, keras.Sequential) else None
    if isinstance(model, Functional) and _is_inherited("call", model, Functional):
        return model
    return None


def _is_inherited(name: str, model: keras.Model, base: type) -> bool:
    return name not in vars(model) and getattr(type(model), name) is getattr(base, name)


def by_name(model: keras.Model, y_pred: Any) -> Any:
    """What a model yields, with dicts by the names of heads in place of lists and tuples.

    A head of a list has the name of its layer if the model has a graph, the user gave the name, and
    no other head of the list has it. Otherwise its name is its position.
    """
    return _by_name(y_pred, outputs(model))


def _by_name(y_pred: Any, symbolic: Any) -> Any:
    if isinstance(y_pred, Mapping):
        known = symbolic if isinstance(symbolic, Mapping) else {}
        return {str(key): _by_name(value, known.get(key)) for key, value in y_pred.items()}
    if not isinstance(y_pred, list | tuple):
        return y_pred
    # An own `postprocess` may pass on other heads than the graph has.
    is_same = isinstance(symbolic, list | tuple) and len(symbolic) == len(y_pred)
    parts: Sequence[Any] = symbolic if is_same else [None] * len(y_pred)
    items = zip(_names(parts), y_pred, parts, strict=True)
    return {name: _by_name(value, part) for name, value, part in items}


def _names(symbolic: Sequence[Any]) -> list[str]:
    names = [None if keras.tree.is_nested(part) else _layer_name(part) for part in symbolic]
    return [
        str(position) if name is None or names.count(name) > 1 else name
        for position, name in enumerate(names)
    ]


def _layer_name(tensor: Any) -> str | None:
    """The name that the user gave to the layer, but for those that a position may have."""
    if tensor is None:
        return None
    layer, _ = made_by(tensor)
    is_taken = has_automatic_name(layer) or layer.name.isdecimal()
    return None if is_taken else str(layer.name)


def heads(named: Any, path: str = "") -> dict[str, Any]:
    """Flattens what `by_name` returns: a dict from head, as `"a/b"`, or `""` for a single one."""
    if not isinstance(named, Mapping):
        return {path: named}
    found: dict[str, Any] = {}
    for key, value in named.items():
        found |= heads(value, f"{path}/{key}" if path else key)
    return found


def outputs(model: keras.Model) -> Any | None:
    """The symbolic outputs as the model returns them, `None` where there is no graph."""
    graph = functional(model)
    if graph is None:
        return None
    structure = graph.output
    is_list_of_one = isinstance(structure, list | tuple) and len(structure) == 1
    return structure[0] if is_list_of_one else structure


def activation(model: keras.Model, head: str) -> str | None:
    """Name of the function that yields an output, such as `"softmax"`; `None` where unknown."""
    tensor = heads(by_name(model, outputs(model))).get(head)
    while tensor is not None:
        operation, index = made_by(tensor)
        function = getattr(operation, "activation", None)
        inner = functional(operation) if isinstance(operation, keras.Model) else None
        if inner is not None:
            tensor = keras.tree.flatten(inner.output)[index]
        elif isinstance(operation, keras.layers.Activation) and function is linear:
            tensor = operation.input  # only casts, as TensorFlow's guide to mixed precision has it
        else:
            # Layers and operations such as `Softmax` are named after what they compute.
            return getattr(function, "__name__", type(operation).__name__.lower())
    return None
