"""What the tests of evaluation share: files with labels and targets."""

import json

import pytest

from kerasext.storage import PredictionFileWriter, RaggedRows


@pytest.fixture
def store(path):
    """Writes columns into a file, in steps of some rows, and gives its path."""

    def write(columns, *, complete=True, task=None, step=23, metadata=None, **options):
        metadata = {**({"task": task} if task else {}), **(metadata or {})}
        described = {"prediction_metadata": json.dumps(metadata)} if metadata else {}
        ragged = [name for name, values in columns.items() if isinstance(values, RaggedRows)]
        writer = PredictionFileWriter(
            path, mode="w", attributes=described, ragged=ragged, **options
        )
        rows = len(next(iter(columns.values())))
        for start in range(0, max(rows, 1), step):
            writer.append({name: values[start : start + step] for name, values in columns.items()})
        writer.commit()
        if complete:
            writer.finish()
        writer.close()
        return path

    return write
