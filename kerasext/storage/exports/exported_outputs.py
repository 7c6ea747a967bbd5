"""What of a prediction file goes to another tool: which outputs, their names, rows in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kerasext.storage.columns.class_names import ClassNames
from kerasext.storage.columns.dimension_scales import has_classes_last
from kerasext.storage.columns.output_names import check_name_list, find_outputs
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.format.layout import head_and_output
from kerasext.storage.reading.dense_output import DenseOutput
from kerasext.storage.reading.ragged_output import RaggedOutput
from kerasext.storage.reading.row_blocks import Output, read_rows, row_blocks

Outputs = Mapping[str, Output]


class ExportedOutputs:
    """Some outputs of a file, and the rows that they have now.

    Args:
        outputs: The outputs of the file by name.
        class_names: The names of the classes by head.
        chosen: Names of outputs or of groups of them, in the order in which they go out; `None`
            for all.

    Attributes:
        outputs: Dict from name to output, those chosen.
        rows: Int. Rows of each of them.
        class_names: Dict from output name to the names of the classes on its last axis.
        label_names: Dict from output name to the names of its labels, one label a row.

    Raises:
        TypeError: If `chosen` is no sequence of strings.
        ValueError: If `chosen` is empty, or has a name that is none of the file's, or the file has
            no outputs.
    """

    def __init__(
        self,
        outputs: Outputs,
        class_names: Mapping[str, ClassNames],
        chosen: Sequence[str] | None,
    ) -> None:
        self.outputs = _choose(outputs, chosen)
        self.rows = len(next(iter(self.outputs.values())))
        self.class_names: dict[str, ClassNames] = {}
        self.label_names: dict[str, ClassNames] = {}
        row_shapes = {
            name: output.shape[1:]
            for name, output in outputs.items()
            if isinstance(output, DenseOutput)
        }
        for name, output in self.outputs.items():
            head, last = head_and_output(name)
            names = class_names.get(head)
            if names is None or isinstance(output, RaggedOutput):
                continue
            if has_classes_last(name, row_shapes) and output.shape[-1] == len(names):
                self.class_names[name] = names
            elif last == "labels" and output.ndim == 1 and output.dtype.kind in "iu":
                self.label_names[name] = names

    def blocks(self, most_bytes: int, *, multiple: int = 1) -> Iterator[tuple[int, int]]:
        """Cuts the rows into blocks that are read one after the other.

        Args:
            most_bytes: Int. Bytes that the arrays of a block have, if that is not less than
                `multiple` rows.
            multiple: Int. Rows in each block are a multiple of it; the last has what is left.

        Yields:
            Tuple of the first row of a block, and the one after its last.
        """
        return row_blocks(self.outputs.values(), most_bytes, multiple=multiple)

    def read(self, name: str, start: int, stop: int) -> np.ndarray | RaggedRows:
        """The rows of an output from one to before another, in the machine's byte order."""
        return read_rows(self.outputs[name], start, stop)


def label_codes(name: str, labels: np.ndarray, names: ClassNames) -> tuple[np.ndarray, list[str]]:
    """Labels as places in a list of names that are all different, as categories have to be.

    Args:
        name: String. The output.
        labels: Integer array of shape `(rows,)`.
        names: Names of the classes.

    Returns:
        Tuple of the places, array of shape `(rows,)`, int32, -1 where the label is; and the names.

    Raises:
        ValueError: If a label is smaller than -1 or not smaller than the number of classes.
    """
    if labels.size and (labels.min() < -1 or labels.max() >= len(names)):
        raise ValueError(
            f"Labels of output {name!r} must be -1 (no label) or from 0 to {len(names) - 1}, for "
            "these have names; leave it out with `outputs`. "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )
    texts = np.asarray(names).tolist()
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    codes = np.array([*(places[text] for text in texts), -1], np.int32)
    return codes[labels.astype(np.int64)], list(places)


def _choose(outputs: Outputs, chosen: Sequence[str] | None) -> dict[str, Output]:
    if not outputs:
        raise ValueError(
            "A file must have outputs to be exported; predict again. Received: a file without any"
        )
    if chosen is None:
        return dict(outputs)
    names = check_name_list("outputs", chosen)
    found = find_outputs(outputs, names, argument="outputs", where="of the file")
    return {name: outputs[name] for name in found}
