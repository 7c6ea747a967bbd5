"""What kerasext uses of Keras that Keras does not document. Checked with Keras 3.12 to 3.15.

Of `predict`'s loop, which is the same on every backend but for what is said of JAX:

- it calls `callbacks.on_predict_batch_begin`, then `self.predict_function`, once per step;
- `predict` and `predict_on_batch` begin with `self.make_predict_function()`;
- it appends whatever structure `predict_function` returns: of `{}` it keeps nothing;
- `predict_function` takes a list of batches. On JAX it takes the model's state, too, and the
  iterator over the data, takes `steps_per_execution` batches from that, ends by `StopIteration`,
  and returns the outputs and the new state;
- on JAX the model has no weights from its first step to its last, and `predict_function` gives the
  arrays of the state away, so that any error in between leaves a model without weights. `fit` was
  repaired (keras-team/keras#21019), `predict` was not.

A callback's `logs` are no way to the outputs: they are flattened, converted and keyed by the
innermost name (keras-team/keras#20380). And nothing that a callback does keeps `predict` from
holding every output (keras-team/keras#21642).
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import keras

_UNDONATED = "_kerasext_undonated"


def check_predict_loop(model: keras.Model) -> None:
    """Checks that the steps of a model's `predict` can be seen, and by this process alone.

    Args:
        model: A model in `on_predict_begin`.

    Raises:
        RuntimeError: If Keras has changed.
        ValueError: If other processes share it.
    """
    missing = [
        name
        for name in ("predict_function", "make_predict_function", "steps_per_execution")
        if not hasattr(model, name)
    ]
    if keras.backend.backend() == "jax":
        missing += [
            f"{type(variable).__name__}._value"
            for variable in model.variables[:1]
            if not hasattr(variable, "_value")
        ]
    if missing or "predict_function" not in vars(model):
        raise RuntimeError(
            "This version of Keras is not one that kerasext knows: the steps of `predict` can't be "
            "seen in it; use Keras 3.12 to 3.15, or a newer kerasext. "
            f"Received: keras {keras.__version__}, without {missing or ['predict_function']}"
        )
    processes = number_of_processes(model)
    if processes > 1:
        raise ValueError(
            "A `predict` that several processes share can't be written: each would write all rows, "
            "and one that stops or resumes would leave the others waiting. Let each predict a part "
            "of the data by itself, to a file of its own. "
            f"Received: {processes} processes"
        )


def number_of_processes(model: keras.Model) -> int:
    """How many processes share one `predict` of a model."""
    if keras.backend.backend() == "jax" and keras.distribution.distribution() is not None:
        return int(importlib.import_module("jax").process_count())
    resolver = getattr(strategy(model), "cluster_resolver", None)
    if resolver is None:
        return 1
    cluster = resolver.cluster_spec()
    return max(sum(int(cluster.num_tasks(job)) for job in cluster.jobs), 1)


def strategy(model: keras.Model) -> Any | None:
    """The `tf.distribute` strategy in whose scope a model was made, if any."""
    return getattr(model, "_distribute_strategy", None)


def number_of_rows(batch: Any, model: keras.Model) -> int | None:
    """Rows of a batch as `predict_function` gets it, `None` if that can't be told.

    Args:
        batch: Structure of tensors, or of values of a strategy's replicas.
        model: The model.
    """
    first = next(iter(keras.tree.flatten(batch)), None)
    distributed = strategy(model)
    parts: Any = (first,)
    if distributed is not None:
        parts = distributed.experimental_local_results(first)
    rows = 0
    for part in parts:
        shape: Any = getattr(part, "shape", ())
        length = shape[0] if len(shape) else None
        if length is None:
            count: Any = getattr(part, "nrows", lambda: None)  # of a ragged tensor
            length = count()
        if length is None:
            return None
        rows += int(length)
    return rows


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


def forget_state(model: keras.Model) -> None:
    """Lets a model on JAX forget what a `predict` that failed has left for it.

    The model has the same values; but they would be put back, over weights set since, as soon as a
    callback asks for its `model`.
    """
    if keras.backend.backend() == "jax":
        model._jax_state = None


def undonated(model: keras.Model, function: Any) -> Callable[..., Any]:
    """A predict function on JAX that leaves alone the arrays of the state that it is given.

    Args:
        model: The model.
        function: Its predict function.

    Returns:
        A function with the same results; Keras's own where that gives nothing away, or is not the
        one that Keras makes.
    """
    is_kerass = getattr(function, "__qualname__", "").startswith("JAXTrainer.make_predict_function")
    is_donating = model.jit_compile and not model.run_eagerly
    if not is_kerass or not is_donating or keras.config.is_nnx_enabled():
        return function  # type: ignore[no-any-return]
    # Kept on Keras's own, which `compile` drops, and which is made for a number of steps.
    if _UNDONATED not in vars(function):
        jax: Any = importlib.import_module("jax")
        shardings = None
        if keras.distribution.distribution() is not None:
            shardings = None, model._get_state_sharding_spec()[1]
        compiled = jax.jit(model.predict_step, out_shardings=shardings)

        def step(state: Any, data: Any) -> Any:
            outputs, others = compiled(state, data)
            return outputs, (state[0], others)

        setattr(function, _UNDONATED, model._make_function(step, concatenate_outputs=True))
    return getattr(function, _UNDONATED)  # type: ignore[no-any-return]
