"""What all callbacks of `predict` refuse."""

from __future__ import annotations

from typing import Any

import keras

from kerasext.keras_internals import check_model, predict_loop


class PredictCallback(keras.callbacks.Callback):
    """A callback for `model.predict` alone."""

    def set_model(self, model: keras.Model) -> None:
        """Takes the model, and makes its predict function if it has none.

        Keras does that next, each thread for itself: the last one would replace what stands in for
        the function of another that has begun.

        Raises:
            TypeError: If it is not a `keras.Model`.
        """
        check_model(model)
        super().set_model(model)
        predict_loop.make_predict_function_once(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Raises `ValueError`."""
        self._refuse("fit")

    def on_test_begin(self, logs: Any = None) -> None:
        """Raises `ValueError`."""
        self._refuse("evaluate")

    def _refuse(self, method: str) -> None:
        raise ValueError(
            f"`{type(self).__name__}` works in `predict` only; pass it to `model.predict(x, "
            "callbacks=[...])`, which another callback may call in `on_epoch_end`. "
            f"Received: a call of `{method}` with this callback"
        )
