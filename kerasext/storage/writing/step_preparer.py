"""Checking the steps of a writer, and casting them to what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasext.storage.columns.dense_spec import TextTooLongError
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.step_specs import Ragged, Spec, check_ragged, specs_of
from kerasext.storage.format.layout import IDS
from kerasext.storage.writing.compression import Compression, check_compressed_outputs
from kerasext.storage.writing.resume import PresentFile

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class StepPreparer:
    """Checks the steps of a writer, and casts them to what is stored.

    Args:
        dtypes: Mapping from output name to the dtype it is stored as.
        ragged: As `check_ragged` takes it.
        compression: As `check_compression` takes it.
        present: `PresentFile` that the steps are added to, `None` for a new file.
        may_widen: Bool. Whether text of the file gets wider for longer strings, unless `dtypes` has
            its width.
    """

    def __init__(
        self,
        dtypes: Mapping[str, DTypeLike],
        *,
        ragged: Ragged,
        compression: Compression | Mapping[str, Compression],
        present: PresentFile | None,
        may_widen: bool,
    ) -> None:
        self._dtypes = dict(dtypes)
        self._ragged = check_ragged(ragged)
        self._compression = compression
        self._present = present
        self._may_widen = may_widen

    def reserve_id_width(self, width: int) -> None:
        """Makes room for ids of text before the first step.

        Args:
            width: Int. Bytes of the longest id.

        Raises:
            TextTooLongError: If that is more than the file has, or than was asked for.
        """
        widths = {} if self._present is None else self._present.text_dtypes
        dtype = np.dtype(self._dtypes.get(IDS, widths.get(IDS, np.void)))
        if dtype.kind == "S" and width > dtype.itemsize:
            if not self._may_widen or IDS in self._dtypes:
                raise TextTooLongError(IDS, width, dtype)
            self._dtypes[IDS] = np.dtype(f"S{width}")

    def first_specs(self, step: Mapping[str, np.ndarray | RaggedRows]) -> dict[str, Spec]:
        """Returns the specs of the outputs of a first step, text as wide as in the present file.

        Raises:
            ValueError: If the outputs are not those of the file; and see `specs_of`.
            TypeError: See `specs_of`.
        """
        dtypes = self._dtypes
        if self._present is not None:
            widths = self._present.text_dtypes.items()
            dtypes = {**{name: dtype for name, dtype in widths if name in step}, **dtypes}
        specs = specs_of(step, dtypes=dtypes, ragged=self._ragged)
        check_compressed_outputs(specs, self._compression)
        if self._present is not None:
            self._present.check_specs(specs)
        return specs

    def prepare(
        self, step: Mapping[str, np.ndarray | RaggedRows], specs: dict[str, Spec]
    ) -> tuple[dict[str, Spec], dict[str, Any]]:
        """Checks a step and casts it.

        Args:
            step: Mapping from output name to rows.
            specs: Dict from output name to spec.

        Returns:
            Tuple of the specs, of wider text if the step needs it, and of a dict from output name
            to rows as they are stored.

        Raises:
            ValueError: If outputs are missing, or differ in their number of rows; and see the
                `prepare` of the specs.
        """
        if step.keys() != specs.keys():
            raise ValueError(
                "Every step must have the same outputs. "
                f"First step: {sorted(specs)}. Received: {sorted(step)}"
            )
        while True:
            try:
                arrays: dict[str, Any] = {
                    name: spec.prepare(step[name]) for name, spec in specs.items()
                }
                break
            except TextTooLongError as error:
                if not self._may_widen or error.output in self._dtypes:
                    raise
                # Twice as wide: a longer string may follow, and the larger the file is, the longer
                # it takes to rewrite it.
                spec = specs[error.output].widened(2 * error.width)
                specs = {**specs, error.output: spec}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"All outputs of a step must have the same number of rows. Received: rows={lengths}"
            )
        return specs, arrays
