"""The predict function of a model, and what stands in for it, thread by thread.

A model has one `predict_function`, which Keras looks up once per step. Whoever wants to see a step
must put something in its place, and several threads may predict with one model. So each thread has
a stand-in of its own, and the model one dispatcher, as long as any thread has a stand-in. It calls
the stand-in of its thread, or Keras's function.

`compile` sets the attribute to `None`, and `make_predict_function(force=True)` replaces it, in any
thread, at any time. Both are noticed when the next stand-in is placed. Between
`on_predict_batch_begin` and the step neither can be hidden from Keras's loop: after `compile` it
fails by itself; after the other the stand-in is not called, and whoever placed it must see to that.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import keras

Made = TypeVar("Made")

_ATTRIBUTE = "_kerasext_predict_functions"
_creating = threading.Lock()


class PredictFunctions:
    """Keras's predict function of a model, and its stand-ins; `of` has the one of each model.

    Attributes:
        takes_dict: Dict from key to whether the model takes a dict of that key alone; whoever asks
            the model keeps the answer here.
    """

    def __init__(self, model: keras.Model) -> None:
        self.takes_dict: dict[str, bool] = {}
        self._model = weakref.ref(model)
        self._attributes = vars(model)
        self._lock = threading.RLock()
        self._function: Any = None
        self._kept: tuple[Any, dict[Hashable, Any]] = (None, {})
        self._stand_ins: dict[int, Callable[..., Any]] = {}  # by the identity of the thread
        self._users: list[tuple[threading.Thread, weakref.ref[Any]]] = []
        # Once, to be told from others by `is`.
        self._dispatcher = self._dispatch
        self._maker = self._make

    @classmethod
    def of(cls, model: keras.Model) -> PredictFunctions:
        """Those of a model, made at the first call."""
        functions: PredictFunctions | None = model.__dict__.get(_ATTRIBUTE)
        if functions is None:
            with _creating:
                # Past Keras's `__setattr__`, which tracks what it is given. Not in a dictionary
                # with weak keys: Keras's function, a value, keeps its model alive.
                functions = model.__dict__.setdefault(_ATTRIBUTE, cls(model))
        return functions

    def place(self, stand_in: Callable[..., Any]) -> None:
        """Puts a stand-in in the place of the predict function, for the thread that calls."""
        with self._lock:
            self._notice_changes()
            # In this order: an interruption in between leaves a dispatcher that calls Keras's.
            self._attributes["predict_function"] = self._dispatcher
            self._attributes["make_predict_function"] = self._maker
            self._stand_ins[threading.get_ident()] = stand_in

    def placed(self) -> Callable[..., Any] | None:
        """The stand-in of the thread that calls, if it has one."""
        return self._stand_ins.get(threading.get_ident())

    def is_placed(self, stand_in: Callable[..., Any], ident: int) -> bool:
        """Whether a stand-in of a thread is still there."""
        return self._stand_ins.get(ident) is stand_in

    def remove(self, stand_in: Callable[..., Any], ident: int) -> None:
        """Takes the stand-in of a thread away, if it is still there; from whatever thread."""
        with self._lock:
            if self._stand_ins.get(ident) is stand_in:
                del self._stand_ins[ident]
                self._notice_changes()
                self._put_in_place()

    def function(self) -> Any:
        """Keras's predict function, made if it is not there."""
        with self._lock:
            self._notice_changes()
            if self._function is None:
                self._function = self._made(force=False)
                self._put_in_place()
            return self._function

    def make_apart(self, **attributes: Any) -> Any:
        """A new predict function, not on the model, as if the model had other attributes."""
        return self._made(force=True, **attributes)

    def kept(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made for a key since Keras's predict function was; made now if nothing was.

        What changes the steps of a model, such as `compile`, also drops Keras's function.
        """
        with self._lock:
            function = self.function()
            if self._kept[0] is not function:
                self._kept = function, {}
            kept = self._kept[1]
            if key not in kept:
                kept[key] = make()
            made: Made = kept[key]
            return made

    def enter(self, user: Any) -> None:
        """Notes that a thread begins to predict, and that it is the only one on JAX.

        Args:
            user: Whoever calls `leave` later, unless it is deleted before.

        Raises:
            RuntimeError: If another thread predicts with the model on JAX.
        """
        if keras.backend.backend() != "jax":
            return
        thread = threading.current_thread()
        with self._lock:
            self._users = [
                (other, ref)
                for other, ref in self._users
                if other.is_alive() and ref() not in (None, user)
            ]
            if any(other is not thread for other, _ in self._users):
                raise RuntimeError(
                    "On JAX one thread at a time can predict with a model, because Keras takes the "
                    "weights out of the model meanwhile; give each thread a model of its own, or "
                    "hold a lock. If the other `predict` has failed, call `close()` of its writer. "
                    f"Received: a second thread, {thread.name!r}, "
                    f"beside {sorted({other.name for other, _ in self._users})}"
                )
            self._users.append((thread, weakref.ref(user)))

    def leave(self, user: Any) -> None:
        """Notes that a `predict` has ended; safe to call again."""
        with self._lock:
            self._users = [entry for entry in self._users if entry[1]() not in (None, user)]

    def _dispatch(self, *args: Any) -> Any:
        stand_in = self._stand_ins.get(threading.get_ident())
        return (stand_in or self.function())(*args)

    def _make(self, force: bool = False) -> Any:
        """Stands in for `make_predict_function`, with which every `predict` begins.

        What its thread, or a thread that is dead, has left there goes.
        """
        with self._lock:
            alive = sys._current_frames().keys() - {threading.get_ident()}
            for ident in self._stand_ins.keys() - alive:
                del self._stand_ins[ident]
            self._notice_changes()
            if force or self._function is None:
                self._function = self._made(force=force)
            self._put_in_place()
            return self._function

    def _notice_changes(self) -> None:
        function = self._attributes.get("predict_function")
        if function is not self._dispatcher:
            self._function = function

    def _put_in_place(self) -> None:
        attributes = self._attributes
        if self._stand_ins:
            attributes["predict_function"] = self._dispatcher
            attributes["make_predict_function"] = self._maker
        else:
            attributes["predict_function"] = self._function
            if attributes.get("make_predict_function") is self._maker:
                del attributes["make_predict_function"]

    def _made(self, *, force: bool, **attributes: Any) -> Any:
        model: Any = self._model()
        apart = _Apart(model, predict_function=self._function, **attributes)
        type(model).make_predict_function(apart, force)
        return apart.predict_function


class _Apart:
    """A model with some attributes of its own, which can be set without the model's.

    `make_predict_function` returns its result as an attribute of the model, where other threads
    would find it.
    """

    def __init__(self, model: keras.Model, **attributes: Any) -> None:
        vars(self).update(_model=model, **attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_model"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            vars(self)[name] = value
        else:
            setattr(vars(self)["_model"], name, value)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # by which `super()` takes it for the model
            return type(vars(self)["_model"])
        return super().__getattribute__(name)


@contextmanager
def predicting_alone(model: keras.Model) -> Iterator[None]:
    """Within it no other thread does so with the model, on JAX; see `enter`."""

    class User:
        pass

    user = User()
    functions = PredictFunctions.of(model)
    functions.enter(user)
    try:
        yield
    finally:
        functions.leave(user)
