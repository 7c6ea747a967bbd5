"""Reading a prediction file."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from kerasext.storage.columns.class_names import ClassNames
from kerasext.storage.columns.dimension_scales import COORDINATES
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.exports.arrow_table import BATCH_BYTES, arrow_table
from kerasext.storage.exports.csv_file import write_csv_file
from kerasext.storage.exports.data_frame import data_frame
from kerasext.storage.exports.exported_outputs import ExportedOutputs
from kerasext.storage.exports.parquet_file import write_parquet_file
from kerasext.storage.exports.tf_dataset import tf_dataset
from kerasext.storage.format.damage import DamagedFileError, naming_damage
from kerasext.storage.format.layout import PLAIN_OUTPUTS
from kerasext.storage.index.index_source import open_source
from kerasext.storage.reading.dense_output import DenseOutput
from kerasext.storage.reading.head import Head, choose_head, heads_of
from kerasext.storage.reading.ragged_output import RaggedOutput

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import tensorflow as tf

_Default = TypeVar("_Default")

_FOLLOW_ROWS = 65536
_FOLLOW_SECONDS = 0.02
_VERIFY_ATTEMPTS = 5


class PredictionFile(Mapping[str, DenseOutput | RaggedOutput]):
    """The outputs that a prediction file holds, by name.

    A mapping from output name (`"labels"`, or `"head/labels"` for nested ones) to an array that is
    read when it is indexed: a `DenseOutput`, or a `RaggedOutput` if rows differ in shape. The
    columns `"ids"`, `"targets"` (`"targets/..."` for nested ones) and `"row"`, the number of each
    row in the data, are in it, too, if the file has them. It shows committed rows only. An output
    is opened and checked when it is first asked for.

    Opening changes nothing in the file. The object and its outputs can be pickled, as for the
    workers of a `DataLoader`: another process opens the same path for itself.

    Args:
        path: String or path-like. The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: When rows are read, if they are compressed by a filter that is not installed.
        ValueError: If it is not a prediction file, damaged, or of a newer version than this library
            reads.

    Example:

    ```python
    with PredictionFile("digits.h5") as predictions:
        predictions.rows                      # 360
        labels = predictions["labels"][:10]   # array of shape (10,), int32
        predictions.class_names[labels]       # their names
    ```
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._source = open_source(self.path)
        # `None` until an output is asked for, which opens it.
        self._outputs: dict[str, DenseOutput | RaggedOutput | None]
        self._outputs = dict.fromkeys(self._source.output_names)

    @property
    def rows(self) -> int:
        """Number of committed rows, the same for every output."""
        return self._source.state.rows

    @property
    def first_row(self) -> int:
        """Row at which the rows of the last predict call begin."""
        return self._source.state.first_row

    @property
    def complete(self) -> bool:
        """Whether the predict call that wrote the file came to its end."""
        return self._source.state.complete

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that stand beside the outputs: of `ids`, `targets` and `row`.

        An output of the model that has such a name is none of them.
        """
        return self._source.side_columns

    @property
    def class_names(self) -> ClassNames | dict[str, ClassNames] | None:
        """Names of the classes: one array-like, or one per head; `None` where none are stored.

        `class_names[labels]` is the array of names of an array of labels.
        """
        by_head = self._source.class_names()
        return by_head.get("", by_head) or None

    @property
    def heads(self) -> list[str]:
        """Names of the heads; `[""]` for a model with one, whose outputs have no group.

        A head is a group with outputs of a task, such as `labels` or `prediction`, or one that the
        model names in its `task`. A file of a model without tasks has the head `""` only.
        """
        return list(heads_of(self._outputs, self.prediction_metadata, self.columns))

    def head(self, name: str = "") -> Head:
        """All that the file holds of one head: labels, confidence, class names, task, targets.

        Args:
            name: String. The head. Defaults to `""`, for the only head of the file. Heads that the
                model passes on without a task do not count then.

        Returns:
            `Head`, whose outputs are `None` where the file does not have them.

        Raises:
            TypeError: If `name` is no string.
            ValueError: If the file has no such head, or several and none was named, with the heads
                and the nearest name; or if the file was closed, or is damaged.

        Example:

        ```python
        with PredictionFile("animals.h5") as predictions:
            kind = predictions.head("kind")
            kind.class_names[kind.labels[:10]]
        ```
        """
        metadata = self.prediction_metadata
        name = choose_head(name, heads_of(self._outputs, metadata, self.columns))
        return Head(
            name,
            self,
            metadata,
            class_names=self._source.class_names().get(name),
            columns=self.columns,
            path=self.path,
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """What the user gave as `metadata` when the file was made."""
        return self._json_attribute("metadata")

    @property
    def prediction_metadata(self) -> dict[str, Any]:
        """Task, class names, thresholds and other settings of the model."""
        return self._json_attribute("prediction_metadata")

    @property
    def origin(self) -> dict[str, Any]:
        """Where the file comes from: model name and fingerprint, versions, times.

        Times are UTC, as ISO 8601: `started` and `created` those of the call that made the file and
        of its first step, `ended` that of the last commit. `batch_size` is the rows of a batch, or
        `None` if that is unknown. `unchecked_resumes` counts the calls with `mode="resume"` and
        `resume_check=False`, which did not compare values.
        """
        stored = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self._source.attributes().items()
            if name not in {"metadata", "prediction_metadata", COORDINATES, PLAIN_OUTPUTS}
        }
        with naming_damage(self.path, "ended"):
            ended = datetime.fromtimestamp(self._source.state.ended, UTC)
            batch_size = self._source.state.batch_size or None
            unchecked = self._source.state.unchecked_resumes
        return {
            **stored,
            "ended": ended.isoformat(timespec="seconds"),
            "batch_size": batch_size,
            "unchecked_resumes": unchecked,
        }

    @property
    def health(self) -> dict[str, float]:
        """How the last predict call went: see `HDF5PredictionWriter.health`."""
        return self._source.state.health

    def refresh(self) -> None:
        """Looks for rows that were committed since, in a file that is being written.

        Outputs taken from the file before keep showing the rows that they had.
        """
        if self._source.refresh():
            self._outputs = dict.fromkeys(self._source.output_names)

    def follow(self, *, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Reads the file from its first row on, waiting for more until it is complete.

        Args:
            timeout: Float. Seconds without a new row after which it ends, as it should where the
                writer may have been killed; `complete` tells. Defaults to `None`: never.

        Yields:
            Dict from output name to array of shape `(rows, ...)`, or to the list of `rows` arrays
            where they differ in shape, for the rows that were committed since the last one.
        """
        row = 0
        new_at = time.monotonic()
        while True:
            self.refresh()
            complete = self.complete  # before the rows: those that it counts are all there
            if self.rows > row:
                batches = (
                    slice(start, min(start + _FOLLOW_ROWS, self.rows))
                    for start in range(row, self.rows, _FOLLOW_ROWS)
                )
                row = self.rows
                for rows in batches:
                    yield {name: output[rows] for name, output in self.items()}
                new_at = time.monotonic()
            elif complete or (timeout is not None and time.monotonic() - new_at > timeout):
                return
            else:
                time.sleep(_FOLLOW_SECONDS)

    def verify(self) -> None:
        """Reads the whole file and compares it with the checksums that were stored with it.

        Every committed row is compared, also in a file that is being written or was interrupted.

        Raises:
            ValueError: If rows differ from those that were written, naming the output, or an output
                is gone.
        """
        for attempt in range(_VERIFY_ATTEMPTS):
            damage = self._source.find_damage()
            if damage is None:
                return
            # A writer that resumed may have replaced rows while they were read.
            if attempt == _VERIFY_ATTEMPTS - 1 or not self._source.has_new_state():
                raise DamagedFileError(
                    f"The file is damaged: {damage}. Received: path={str(self.path)!r}"
                )
            self.refresh()

    def iter_batches(self, rows: int) -> Iterator[dict[str, Any]]:
        """Reads the file from the first row to the last in constant memory.

        Args:
            rows: Int. Rows in each batch; the last one has what is left.

        Yields:
            Dict from output name to array of shape `(rows, ...)`, or to the list of `rows` arrays
            where they differ in shape.

        Raises:
            ValueError: If `rows` is not positive.
        """
        if rows < 1:
            raise ValueError(f"`rows` must be at least 1. Received: rows={rows}")
        return self._batches(rows)

    def _batches(self, rows: int) -> Iterator[dict[str, Any]]:
        for start in range(0, self.rows, rows):
            yield {name: output[start : start + rows] for name, output in self.items()}

    def to_pandas(self, *, outputs: Sequence[str] | None = None) -> pd.DataFrame:
        """Reads the file into a data frame of pandas, a row for each row.

        | output | columns |
        |---|---|
        | one number or string a row | `confidence`, `head/labels`: its name |
        | one axis more | `probabilities/cat`: with the names of the classes; else `embedding/0` |
        | further axes, or rows of different shapes | `mask`: its name, an array in each row |
        | `labels` with names of classes | also `labels/name`, categorical; missing for -1 |

        Columns count from 0 where two classes have the same name, too. Dtypes are those that
        indexing gives.

        Args:
            outputs: Sequence of strings. Names of outputs or of groups of them, in the order of the
                columns, such as `["labels", "confidence"]`. Defaults to `None`, for all.

        Returns:
            `pandas.DataFrame`.

        Raises:
            ImportError: If pandas is not installed.
            TypeError: If `outputs` is no sequence of strings.
            ValueError: If `outputs` has a name that is not in the file, a label has no name, or the
                file was closed, or is damaged.

        Example:

        ```python
        frame = PredictionFile("digits.h5").to_pandas()
        frame.groupby("labels/name", observed=True)["confidence"].mean()
        frame[frame["probabilities/7"] > 0.9]
        ```
        """
        return data_frame(self._exported(outputs))

    def to_arrow(self, *, outputs: Sequence[str] | None = None) -> pa.Table:
        """Reads the file into a table of Arrow, a column for each output.

        Further axes are lists of a fixed size, or of any size where rows differ in shape or an axis
        has the length 0. A column `labels/name` has the names of labels as a dictionary, null
        for -1. The field of an output with classes on its last axis has their names as
        `class_names` in its metadata; the schema has `kerasext` there. Both are JSON, the latter an
        object of `origin`, `metadata`, `prediction_metadata`, `rows` and `complete`.

        Args:
            outputs: As for `to_pandas`.

        Returns:
            `pyarrow.Table`.

        Raises:
            ImportError: If pyarrow is not installed.
            TypeError: If Arrow has no type for an output, as for complex numbers, or `outputs` is
                no sequence of strings.
            ValueError: As for `to_pandas`.

        Example:

        ```python
        table = PredictionFile("digits.h5").to_arrow(outputs=["labels", "confidence"])
        table.schema.names  # ["labels", "labels/name", "confidence"]
        ```
        """
        return arrow_table(self._exported(outputs), self._provenance())

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        outputs: Sequence[str] | None = None,
        row_group_bytes: int = BATCH_BYTES,
    ) -> None:
        """Writes a Parquet file with the columns of `to_arrow`, in constant memory.

        Each row group is read, written and forgotten. The file appears under its name when it is
        whole, and replaces one that is there; after an error that one stays as it was. Parquet has
        lists of any size only: readers that know Arrow's schema, which is stored, see fixed ones.
        Float16 becomes float32, for many readers don't know Parquet's type of that name.

        Args:
            path: String or path-like. The Parquet file.
            outputs: As for `to_pandas`.
            row_group_bytes: Int. Bytes that the outputs of a row group have in memory, if one row
                has no more. Writing takes some times as much memory. Defaults to 32 MiB.

        Raises:
            FileNotFoundError: If the folder of `path` does not exist.
            ImportError: If pyarrow is not installed.
            IsADirectoryError: If `path` is a folder.
            TypeError: As for `to_arrow`.
            ValueError: As for `to_pandas`, or if `path` is the file itself, or `row_group_bytes` is
                not positive.

        Example:

        ```python
        PredictionFile("digits.h5").to_parquet("digits.parquet")
        duckdb.sql("SELECT labels, avg(confidence) FROM 'digits.parquet' GROUP BY labels")
        ```
        """
        write_parquet_file(
            path,
            self._exported(outputs),
            self._provenance(),
            source=self.path,
            row_group_bytes=row_group_bytes,
        )

    def to_csv(
        self,
        path: str | os.PathLike[str],
        *,
        outputs: Sequence[str] | None = None,
        raw_cells: bool = False,
    ) -> None:
        """Writes a CSV file in UTF-8 with the columns of `to_pandas`, in constant memory.

        Arrays within a row are lists of JSON. Numbers have as many digits as bring them back. The
        file appears under its name when it is whole, as that of `to_parquet`.

        A spreadsheet may run text that begins with `=`, `+`, `-`, `@`, a tab or a line break as a
        formula. Such text, also as the name of a column, gets an apostrophe before it. Numbers stay
        as they are.

        Args:
            path: String or path-like. The CSV file.
            outputs: As for `to_pandas`.
            raw_cells: Bool. Whether text is written without that apostrophe, for a program that
                reads it back. Defaults to `False`.

        Raises:
            FileNotFoundError: If the folder of `path` does not exist.
            IsADirectoryError: If `path` is a folder.
            TypeError: If `outputs` is no sequence of strings, or an output has complex numbers in
                arrays, which JSON does not know.
            ValueError: As for `to_pandas`, or if `path` is the file itself.

        Example:

        ```python
        PredictionFile("digits.h5").to_csv("digits.csv", outputs=["ids", "labels", "confidence"])
        ```
        """
        write_csv_file(path, self._exported(outputs), raw_cells=raw_cells, source=self.path)

    def to_tf_dataset(
        self, *, batch_size: int, outputs: Sequence[str] | None = None
    ) -> tf.data.Dataset:
        """Makes a dataset of TensorFlow that reads the file in order, some batches at a time.

        Its elements are dicts from output name to tensor. Outputs whose rows differ in shape are
        `tf.RaggedTensor`, ragged along all axes of a row, which its `to_tensor` pads. The file must
        stay open while the dataset is used, whose rows are those that the file showed when it was
        made.

        Args:
            batch_size: Int. Rows in each batch; the last one has what is left.
            outputs: As for `to_pandas`.

        Returns:
            `tf.data.Dataset`, which knows its length.

        Raises:
            ImportError: If TensorFlow is not installed.
            TypeError: If TensorFlow has no type for an output, or `outputs` is no sequence of
                strings.
            ValueError: If `batch_size` is not positive, `outputs` has a name that is not in the
                file, or the file was closed.

        Example:

        ```python
        dataset = PredictionFile("digits.h5").to_tf_dataset(batch_size=32)
        images = tf.data.Dataset.from_tensor_slices(test_images).batch(32)
        student.fit(tf.data.Dataset.zip(images, dataset.map(lambda step: step["probabilities"])))
        ```
        """
        return tf_dataset(self._exported(outputs), batch_size=batch_size)

    def close(self) -> None:
        """Closes the file; safe to call again."""
        self._source.close()

    def __reduce__(self) -> tuple[type[PredictionFile], tuple[Path]]:
        self._source.check_open()
        return type(self), (self.path.absolute(),)

    def __eq__(self, other: object) -> bool:
        return self is other  # as files do; a comparison of mappings would read all rows

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> DenseOutput | RaggedOutput:
        self._source.check_open()
        if name not in self._outputs:
            near = difflib.get_close_matches(str(name), self._outputs, n=1)
            remedy = f"; the nearest is {near[0]!r}" if near else ""
            raise KeyError(
                f"{str(self.path)!r} has the outputs {sorted(self._outputs)}{remedy}. "
                f"Received: {name!r}"
            )
        output = self._outputs[name]
        if output is None:
            column = self._source.column(name)
            kind: Any = RaggedOutput if isinstance(column.spec, RaggedSpec) else DenseOutput
            output = self._outputs[name] = kind(self.path, name, column)
        return output

    def get(  # type: ignore[override]
        self, name: str, default: _Default | None = None
    ) -> DenseOutput | RaggedOutput | _Default | None:
        """Returns the output of that name, or `default` if the file has none.

        Defined because Keras gives the method that mappings inherit a docstring of its own.
        """
        return self[name] if name in self._outputs else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        if not self._source.is_open:
            return f"<PredictionFile {str(self.path)!r}: closed>"
        state = "complete" if self.complete else "incomplete"
        lines = [f"<PredictionFile {str(self.path)!r}: {self.rows:,} rows, {state}"]
        width = max(map(len, self), default=0)
        for name, out in self.items():
            is_same = out.dtype == out.stored_dtype or out.dtype.kind == "U"
            stored = "" if is_same else f", stored as {out.stored_dtype}"
            lines.append(f"  {name:<{width}}  {out.dtype!s:<8} {out.shape}{stored}")
        names = self.class_names
        if isinstance(names, ClassNames):
            shown = ", ".join(repr(str(name)) for name in names[:4])
            lines.append(f"  {len(names)} classes: {shown}{', ...' if len(names) > 4 else ''}")
        origin = self.origin
        model = origin.get("model_name")
        made = f"  made {origin.get('created')} by kerasext {origin.get('kerasext_version')}"
        lines.append(made + (f" from model {model!r}" if model else ""))
        return "\n".join(lines) + ">"

    def _exported(self, outputs: Sequence[str] | None) -> ExportedOutputs:
        return ExportedOutputs(self, self._source.class_names(), outputs)

    def _provenance(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "metadata": self.metadata,
            "prediction_metadata": self.prediction_metadata,
            "rows": self.rows,
            "complete": self.complete,
        }

    def _json_attribute(self, name: str) -> dict[str, Any]:
        self._source.check_open()
        with naming_damage(self.path, name):
            value = json.loads(self._source.attribute(name) or "{}")
            if not isinstance(value, dict):
                raise ValueError(f"must be an object of JSON, not {type(value).__name__}")
        return value


@contextlib.contextmanager
def opened(predictions: PredictionFile | str | os.PathLike[str]) -> Iterator[PredictionFile]:
    """Opens a file that is given by its path, and closes it; one that is open stays so."""
    if isinstance(predictions, PredictionFile):
        yield predictions
    else:
        with PredictionFile(predictions) as file:
            yield file
