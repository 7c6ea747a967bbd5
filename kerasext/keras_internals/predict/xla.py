"""Whether XLA compiles the step that is being traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import keras

_by_job: ContextVar[bool | None] = ContextVar("_by_job", default=None)


@contextmanager
def tracing_for(*, jit_compile: bool) -> Iterator[None]:
    """Says for a trace what `model.jit_compile` need not: a job has a choice of its own."""
    token = _by_job.set(jit_compile)
    try:
        yield
    finally:
        _by_job.reset(token)


def is_for_xla(model: keras.Model) -> bool:
    """Whether XLA compiles what is being traced of a model."""
    chosen = _by_job.get()
    return bool(model.jit_compile and not model.run_eagerly) if chosen is None else chosen
