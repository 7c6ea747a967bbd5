"""Where a model's weights are while it predicts on JAX.

From the first step of `predict` to its last the model has none, and `predict_function` gives the
arrays of the state away (`donate_argnums`), so that any error in between, one of a callback or
Ctrl-C included, leaves a model without weights. `fit` was repaired (keras-team/keras#21019),
`predict` was not.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras

_SPARING = "_kerasext_sparing_function"


def state_variables(model: keras.Model) -> list[Any]:
    """The variables whose values `predict` takes from a model on JAX, in the order of its state."""
    return [*model.trainable_variables, *model.non_trainable_variables]


def attach_state(variables: list[Any], state: Any) -> None:
    """Gives a model on JAX its weights back while `predict` has them.

    Args:
        variables: What `state_variables` lists; to be listed once, for it takes longer than a step.
        state: Values of the trainable and of the other variables.
    """
    for variable, value in zip(variables, itertools.chain(*state), strict=True):
        variable._value = value  # `assign` would take fifty times as long


def build(model: keras.Model, x: Any) -> None:
    """Builds what is not yet built of a model on JAX by one batch, as `predict` does."""
    if not all(layer.built for layer in model._flatten_layers()):
        with keras.StatelessScope():
            model(x)


def forget_state(model: keras.Model) -> None:
    """Lets a model on JAX forget what a `predict` that failed has left for it.

    The model has the same values; but they would be put back, over weights set since, as soon as a
    callback asks for its `model`.
    """
    if keras.backend.backend() == "jax":
        model._jax_state = None


def changes_of_step(model: keras.Model) -> Callable[[Any, Any], tuple[Any, dict[int, Any]]]:
    """`model.predict_step` on JAX as a function that does not return what it leaves alone.

    Returns:
        Function from state and data to the outputs, and the new values of those variables that are
        not trainable and were changed, by index.
    """

    def predict_step(state: Any, data: Any) -> tuple[Any, dict[int, Any]]:
        outputs, after = model.predict_step(state, data)
        # What the step leaves alone comes back as the very same object.
        pairs = enumerate(zip(state[1], after, strict=True))
        return outputs, {index: new for index, (old, new) in pairs if new is not old}

    return predict_step


def compiled_changes(model: keras.Model, *, jit_compile: bool) -> Callable[[Any, Any], Any]:
    """`changes_of_step` of a model, compiled by XLA if asked for."""
    changes = changes_of_step(model)
    return importlib.import_module("jax").jit(changes) if jit_compile else changes


def sparing_function(model: keras.Model, function: Callable[..., Any]) -> Callable[..., Any]:
    """A predict function on JAX that only reads the state that it is given.

    Keras's own gives its arrays away (`donate_argnums`) and makes them anew. JAX computes while
    Python goes on, so that a step which fails, by lack of memory most of all, may have returned
    before: then all that came out of it is lost, and the weights are among that.

    Args:
        model: The model.
        function: Its predict function.

    Returns:
        A function with the same results; the given one if it is not what Keras makes.
    """
    is_kerass = getattr(function, "__qualname__", "").startswith("JAXTrainer.make_predict_function")
    if not is_kerass or keras.config.is_nnx_enabled():
        return function
    # Kept on Keras's own, which `compile` drops.
    if _SPARING not in vars(function):
        setattr(function, _SPARING, _make_sparing_function(model))
    kept: Callable[..., Any] = getattr(function, _SPARING)
    return kept


def _make_sparing_function(model: keras.Model) -> Callable[..., Any]:
    is_jitted = bool(model.jit_compile and not model.run_eagerly)
    step, concatenate = compiled_changes(model, jit_compile=is_jitted), _concatenate
    if is_jitted:
        concatenate = importlib.import_module("jax").jit(_concatenate)

    def predict_function(state: Any, batches: Iterator[Any]) -> tuple[Any, Any]:
        trainable, other = state
        parts = []
        for data in itertools.islice(batches, model.steps_per_execution):
            outputs, changed = step((trainable, other), data)
            other = [changed.get(index, value) for index, value in enumerate(other)]
            parts.append(outputs)
        if not parts:
            raise StopIteration  # so Keras's loop sees that the data has come to its end
        return parts[0] if len(parts) == 1 else concatenate(parts), (trainable, other)

    return predict_function


def _concatenate(parts: list[Any]) -> Any:
    numpy: Any = importlib.import_module("jax.numpy")
    return keras.tree.map_structure(lambda *arrays: numpy.concatenate(arrays), *parts)


@contextlib.contextmanager
def weights_kept(model: keras.Model) -> Iterator[None]:
    """Within it `model.predict` leaves the model its weights, however it ends.

    On other backends than JAX it always does, and nothing is done.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    model.make_predict_function()  # what `compile` makes anew, and only `compile`
    before = model.predict_function
    model.predict_function = sparing_function(model, before)
    variables = model.variables if model.built else []
    values = [(variable, variable.value) for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in values:
            if not _is_sound(variable._value):
                variable._value = value
        forget_state(model)
        raise
    finally:
        model.predict_function = before


def _is_sound(value: Any) -> bool:
    if value is None or value.is_deleted():
        return False
    try:
        value.block_until_ready()
    except Exception:  # noqa: BLE001 - that of the step it would have come from
        return False
    return True
