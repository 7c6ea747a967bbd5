"""Whether a `predict_step` passes by the mixin that it should go through, read off its code."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any

import keras

# A step whose code names one of these is taken to call it.
_GOES_ON = {"predict_step", "postprocess"}
_MOST_CALLS = 4  # from the step to the function that goes on


def hides_next(method: Any, cls: type) -> bool:
    """Whether a `predict_step` calls neither another class's `predict_step` nor `postprocess`.

    Reads the code of the method, and of the methods and functions that it names. Naming one of the
    two in any way counts as calling it, so that no step is accused wrongly.

    Args:
        method: What the body of a class has under the name `predict_step`.
        cls: The class.

    Returns:
        Bool. `False` also if there is no code to read.
    """
    functions = list(_functions(method))
    return bool(functions) and not _goes_on(functions, cls, set(), _MOST_CALLS)


def _goes_on(functions: list[Any], cls: type, seen: set[Any], depth: int) -> bool:
    named: list[Any] = []
    for function in functions:
        if function in seen:
            continue
        seen.add(function)
        names = set(_names(function.__code__))
        if names & _GOES_ON:
            return True
        for cell in function.__closure__ or ():
            try:
                named += _functions(cell.cell_contents)
            except ValueError:  # nothing in it yet
                continue
        for name in names:
            named += _functions(function.__globals__.get(name))
            for base in set(cls.__mro__).difference(keras.Model.__mro__):
                named += _functions(vars(base).get(name))
    return bool(named and depth) and _goes_on(named, cls, seen, depth - 1)


def _functions(found: Any) -> Iterator[types.FunctionType]:
    """The functions of Python that an object is, wraps or binds."""
    if isinstance(found, staticmethod | classmethod | types.MethodType):
        found = found.__func__
    for function in (found, inspect.unwrap(found) if hasattr(found, "__wrapped__") else None):
        if isinstance(function, types.FunctionType):
            yield function


def _names(code: types.CodeType) -> Iterator[str]:
    """What code names, and functions inside it."""
    yield from (*code.co_names, *code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
        elif isinstance(constant, str):  # of `getattr`
            yield constant
