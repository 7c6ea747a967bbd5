"""What libraries write to the terminal without Python."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Drops what is written to descriptor 2 meanwhile, or writes it late if an error is raised.

    While TensorFlow 2.21 is imported it writes seven lines there. `TF_CPP_MIN_LOG_LEVEL` and
    `TF_CPP_MAX_VLOG_LEVEL` keep it from one of them.
    """
    try:
        saved = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 2)
            yield
        except BaseException:
            sys.stderr.flush()
            file.seek(0)
            with open(saved, "wb", closefd=False) as stderr:
                shutil.copyfileobj(file, stderr)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
