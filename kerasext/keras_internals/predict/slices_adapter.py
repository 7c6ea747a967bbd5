"""Batches that are cut from arrays, as Keras's `predict` takes them.

A data adapter is the one way into `predict` past `tf.data`, which would copy and gather the rows of
arrays. The class is not public: `src/trainers/data_adapters/data_adapter.py`, Keras 3.12 to 3.15.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from kerasext.keras_internals.private_classes import DataAdapter


class Slices(Protocol):
    """Batches of a known number, iterated over more than once."""

    rows: int
    batch_size: int

    @property
    def num_batches(self) -> int:
        """Their number."""

    def __iter__(self) -> Iterator[Any]:
        """The batches, as the backend's tensors, or NumPy arrays on JAX."""


class SlicesAdapter(DataAdapter or object):  # type: ignore[misc]
    """Slices for `model.predict(SlicesAdapter(slices))`.

    Args:
        slices: `Slices` whose last batch has the rows that are left.

    Attributes:
        is_known: Bool. Whether this version of Keras takes it.
    """

    is_known = DataAdapter is not None

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    @property
    def batch_size(self) -> int:
        """Rows of each batch but the last one."""
        return self._slices.batch_size

    @property
    def num_batches(self) -> int:
        """Number of batches."""
        return self._slices.num_batches

    @property
    def has_partial_batch(self) -> bool:
        """Whether the last batch has fewer rows."""
        return self.partial_batch_size is not None

    @property
    def partial_batch_size(self) -> int | None:
        """Rows of the last batch if they are fewer, else `None`."""
        return self._slices.rows % self._slices.batch_size or None

    def get_tf_dataset(self) -> Iterable[Any]:
        """The batches; iterated over more than once."""
        return self._slices

    def get_jax_iterator(self) -> Iterator[Any]:
        """The batches."""
        return iter(self._slices)

    # Each backend's loop calls one of its own, and only iterates over what it returns.
    get_torch_dataloader = get_tf_dataset
    get_numpy_iterator = get_jax_iterator
