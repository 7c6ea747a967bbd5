"""The column that says which model the rows of a dataset were predicted by.

As a dictionary of Arrow it takes a byte per row, and goes with the rows wherever Ray's operators
put them; what belongs to a block or to a schema gets lost there. Functions of NumPy batches make
text of it, which takes what it says in each row.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from kerasext.storage import GROUP

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
    found = [json.loads(text) for text in column.unique().to_pylist()]
    # Not all of it: Keras numbers the names of models that it makes itself.
    models = {one["attributes"]["model_fingerprint"]: one for one in found}
    if len(models) > 1:
        raise ValueError(
            "All rows must be predicted by one model; keep the file of the model as it is until "
            "the job has ended, and write the rows of each model to a folder of its own. "
            f"Received: rows of the models {sorted(models)}"
        )
    description: dict[str, Any] = found[0]
    return description
