"""Files of two outputs whose rows tell where they stand."""

import subprocess
import sys

import h5py
import numpy as np

from kerasext.storage import PredictionFileWriter

PREAMBLE = """
import os, resource, signal, sys
import numpy as np
from kerasext.storage import PredictionFile, PredictionFileWriter
path = sys.argv[1]
"""


def make_step(first, rows):
    """A step of two outputs whose rows tell where they stand."""
    index = np.arange(first, first + rows)
    return {"a": np.stack([index, -index, index % 7], axis=1).astype("f4"), "b": index.astype("i4")}


def make_steps(sizes, first=0):
    """Consecutive steps of these sizes."""
    starts = first + np.cumsum([0, *sizes])
    return [make_step(start, rows) for start, rows in zip(starts, sizes, strict=False)]


def write(path, steps, **arguments):
    """Writes a complete file."""
    writer = PredictionFileWriter(path, **arguments)
    try:
        for step in steps:
            writer.append(step)
        writer.finish()
    finally:
        writer.close()


def read(path):
    """The outputs and the record of a file, as plain h5py reads them."""
    outputs = {}
    with h5py.File(path, "r") as file:

        def visit(name, node):
            is_ours = name.startswith("_kerasext")
            if isinstance(node, h5py.Dataset) and not is_ours and not node.is_scale:
                outputs[name] = node[()]

        file.visititems(visit)
        return outputs, file["_kerasext/record"][()]


def check_rows(path, rows, *, complete=True):
    """The file is closed, has these rows of `make_step`, and is alone in its folder."""
    outputs, record = read(path)
    assert (record["rows"], bool(record["complete"])) == (rows, complete)
    assert outputs.keys() == {"a", "b"}
    for name, expected in make_step(0, rows).items():
        np.testing.assert_array_equal(outputs[name], expected, strict=True)
    assert list(path.parent.iterdir()) == [path]


def run_python(code, *arguments):
    """Runs code in a process of its own, which must end well and quietly."""
    command = [sys.executable, "-W", "error", "-c", PREAMBLE + code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout
