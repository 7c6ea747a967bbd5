"""The column that says which model the rows of a dataset were predicted by.

As a dictionary of Arrow it takes a byte per row, and goes with the rows wherever Ray's operators
put them; what belongs to a block or to a schema gets lost there.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from kerasext.storage.layout import GROUP

MODEL = GROUP
"""Its name, which no output can have."""


def model_column(description: str, rows: int) -> pa.DictionaryArray:
    """The same description for each row."""
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [description])


def description_of(column: pa.ChunkedArray) -> dict[str, Any]:
    """The description of the rows of a file.

    Raises:
        ValueError: If they are of several models.
    """
    found = column.unique().to_pylist()
    if len(found) > 1:
        models = [json.loads(text)["attributes"]["model_fingerprint"] for text in found]
        raise ValueError(
            "All rows must be predicted by one model; keep the file of the model as it is until "
            "the job has ended, and write the rows of each model to a folder of its own. "
            f"Received: rows of the models {models}"
        )
    description: dict[str, Any] = json.loads(found[0])
    return description
