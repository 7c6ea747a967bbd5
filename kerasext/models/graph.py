"""What the graph of a functional or sequential model tells."""

from __future__ import annotations

from typing import Any

import keras
from keras.activations import linear

from kerasext.keras_internals import Functional, graph_of, made_by


def functional(model: keras.Model) -> Any | None:
    """The model that holds the graph, or `None` where Python code decides what is computed."""
    if isinstance(model, keras.Sequential):
        return graph_of(model) if _is_inherited("call", model, keras.Sequential) else None
    if isinstance(model, Functional) and _is_inherited("call", model, Functional):
        return model
    return None


def _is_inherited(name: str, model: keras.Model, base: type) -> bool:
    return name not in vars(model) and getattr(type(model), name) is getattr(base, name)


def heads(y_pred: Any) -> dict[str, Any]:
    """The tensors of a structure by path: `""` for a single one, else `"a"`, `"a/b"` or `"0"`."""
    return {
        "/".join(map(str, path)): tensor for path, tensor in keras.tree.flatten_with_path(y_pred)
    }


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
    tensor = heads(outputs(model)).get(head)
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
