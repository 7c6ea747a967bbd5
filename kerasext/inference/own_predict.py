"""The `predict` of a model that has one of its own, and writing what it lets Keras predict."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.keras_internals import listed, own_methods, weights_kept


class OwnPredictWriter(HDF5PredictionWriter):
    """Writes the one Keras `predict` in a model's own; the file is complete when that returns.

    Args:
        path: String or path-like. The file.
        **options: Those of `HDF5PredictionWriter`.

    Attributes:
        has_ended: Bool. Whether Keras's `predict` has ended.
    """

    def __init__(self, path: Any, **options: Any) -> None:
        super().__init__(path, accumulate=False, **options)
        self.has_ended = False

    def on_predict_begin(self, logs: Any = None) -> None:
        """Opens the file, once."""
        if self.has_ended:
            raise ValueError(
                "A model's own `predict` must call Keras's once, with all rows, or the file would "
                "hold those of one call only; use `HDF5PredictionWriter` with a file for each. "
                f"Received: a second call, of a model with {_own_predict(self._model)}"
            )
        super().on_predict_begin()

    def on_predict_end(self, logs: Any = None) -> None:
        """Leaves the file open until the model's own `predict` has returned."""
        self.has_ended = True

    def finish(self) -> None:
        """Ends the file, as `on_predict_end` does."""
        super().on_predict_end()


def write_own_predict(
    writer: OwnPredictWriter,
    model: keras.Model,
    x: Any,
    *,
    callbacks: Sequence[keras.callbacks.Callback],
    **options: Any,
) -> None:
    """Calls a model's own `predict` with a writer.

    Args:
        writer: The writer, which was not used before.
        model: The model.
        x: The data, given as they are.
        callbacks: Sequence of further callbacks.
        **options: Further arguments of `predict`. It must take those that are neither `None` nor
            `"auto"`.

    Raises:
        TypeError: If the method does not take `callbacks`, or one of the options.
        ValueError: If a callback keeps outputs. If the method does not hand the callbacks to
            Keras's `predict`, calls that more than once, or returns something else: the file is
            incomplete then, or as it was.
    """
    keeps = [callback for callback in callbacks if getattr(callback, "accumulate", None) is True]
    if keeps:
        raise ValueError(
            "Beside the file of a model with a `predict` of its own no outputs may be kept; pass "
            f"accumulate=False to the other writer. Received: callbacks={keeps}"
        )
    options = {name: value for name, value in options.items() if value not in (None, "auto")}
    options["callbacks"] = [*callbacks, writer]
    _check_parameters(model, options)
    with weights_kept(model), writer:
        try:
            returned = model.predict(x, **options)
        except Exception as error:
            if writer.has_ended:
                error.add_note(
                    "Raised after Keras's `predict` had ended, which returned no outputs because "
                    f"they go to the file. Received: a model with {_own_predict(model)}"
                )
            raise
        if not writer.has_ended:
            raise ValueError(
                "A model's own `predict` must hand `callbacks` to Keras's, or nothing can be "
                "written; add `**kwargs` to it and pass them to `super().predict`. "
                f"Received: a model with {_own_predict(model)}"
            )
        if returned is not None and keras.tree.flatten(returned):
            raise ValueError(
                "A model's own `predict` must return what Keras's does, for that is what the file "
                "holds; change the outputs in `predict_step`, or in the `postprocess` of a mixin. "
                f"Received: a {type(returned).__name__} from a model with {_own_predict(model)}"
            )
        writer.finish()


def own_predict(model: keras.Model) -> Callable[[Any], Any]:
    """Makes a function of the `predict` of a model that has one of its own.

    Args:
        model: The model.

    Returns:
        Function from data, given as they are, to what `predict` returns. Threads may share it.

    Raises:
        TypeError: If the method does not take `verbose`.
    """
    _check_parameters(model, {"verbose": 0})
    is_jax = keras.backend.backend() == "jax"  # where one thread at a time can predict
    alone = threading.RLock() if is_jax else contextlib.nullcontext()

    def predict(x: Any) -> Any:
        with alone:
            return model.predict(x, verbose=0)

    return predict


def _check_parameters(model: keras.Model, options: dict[str, Any]) -> None:
    # Past that of a mixin, which shows Keras's parameters.
    owner = own_methods(model, "predict").get("predict")
    method = model.predict if owner is None else vars(owner)["predict"]
    parameters = inspect.signature(method).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    missing = sorted(options.keys() - parameters.keys())
    if missing:
        raise TypeError(
            "A model's own `predict` must take what it is called with; add `**kwargs` to it and "
            "pass them to `super().predict`. "
            f"Received: {', '.join(missing)}, and a model with {_own_predict(model)}"
        )


def _own_predict(model: keras.Model) -> str:
    return listed(own_methods(model, "predict"))
