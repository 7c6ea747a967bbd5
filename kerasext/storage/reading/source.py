"""What a prediction file and an index of several have in common for a reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kerasext.storage.columns.class_names import ClassNames
from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.format.commit_record import CallState


class DenseColumn(Protocol):
    """The rows of one output, all of one shape, as they are stored.

    Attributes:
        spec: `DenseSpec`.
        rows: Int. Committed rows.
        chunk_rows: Int. Rows that are read fastest at once.
    """

    @property
    def spec(self) -> DenseSpec: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def chunk_rows(self) -> int: ...  # noqa: D102

    def read(self, key: Any) -> np.ndarray:
        """Reads rows, in the dtype in which they are stored.

        Args:
            key: A slice of rows with a positive step; or a tuple of it and of ints and such slices
                for further axes.

        Raises:
            ValueError: If the file was closed, or is damaged where the rows are.
        """
        ...

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Reads rows that follow each other; see `read`."""
        ...

    def take(self, index: np.ndarray) -> np.ndarray:
        """Reads rows that ascend, of whatever distances.

        Args:
            index: Array of shape `(chosen,)`, int64.

        Raises:
            ValueError: As of `read`.
        """
        ...


class RaggedColumn(Protocol):
    """The rows of one output whose rows differ in shape, as they are stored.

    Attributes:
        spec: `RaggedSpec`.
        rows: Int. Committed rows.
        chunk_rows: Int. Rows that are read fastest at once.
    """

    @property
    def spec(self) -> RaggedSpec: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def chunk_rows(self) -> int: ...  # noqa: D102

    def read_rows(self, start: int, stop: int) -> RaggedRows:
        """Reads rows that follow each other.

        Raises:
            ValueError: If the file was closed, or is damaged where the rows are.
        """
        ...

    def take(self, index: np.ndarray) -> list[np.ndarray]:
        """Reads rows in any order.

        Args:
            index: Array of shape `(chosen,)`, int64.

        Raises:
            ValueError: As of `read_rows`.
        """
        ...

    def sizes(self, start: int, stop: int) -> np.ndarray:
        """The number of values in each of some rows, array of shape `(stop - start,)`, int64."""
        ...


class Source(Protocol):
    """What `PredictionFile` reads from: one file, or an index of several.

    Attributes:
        path: Path of the file.
        state: `CallState` of the last commit. `refresh` replaces it.
        output_names: List of the names of the outputs.
    """

    path: Path
    state: CallState

    @property
    def output_names(self) -> list[str]: ...  # noqa: D102
    @property
    def is_open(self) -> bool: ...  # noqa: D102

    @property
    def side_columns(self) -> frozenset[str]:
        """Which of `ids`, `targets` and `row` stand beside the outputs, and are none themselves."""
        ...

    def column(self, name: str) -> DenseColumn | RaggedColumn:
        """An output, opened and checked when it is asked for first."""
        ...

    def attribute(self, name: str) -> Any:
        """An attribute of the file, `None` if there is none; a `ValueError` for other types."""
        ...

    def attributes(self, *names: str) -> dict[str, Any]:
        """The attributes of the file, all or some; those of other types are left out."""
        ...

    def class_names(self) -> dict[str, ClassNames]:
        """The names of the classes by head."""
        ...

    def refresh(self) -> bool:
        """Looks for what was committed since; returns whether there is anything."""
        ...

    def has_new_state(self) -> bool:
        """Whether the writer has committed since the file was opened or refreshed."""
        ...

    def find_damage(self) -> str | None:
        """Compares all rows with their checksums; returns what is wrong, if anything."""
        ...

    def check_open(self) -> None:
        """Raises `ValueError` if it was closed."""
        ...

    def close(self) -> None:
        """Closes the file; safe to call again."""
        ...
