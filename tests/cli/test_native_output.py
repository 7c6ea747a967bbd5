import os
import subprocess
import sys

import pytest

from kerasext.cli.native_output import held_back


def noise():
    """Writes to descriptor 2 as a library in C does."""
    os.write(2, b"noise\n")


def test_noise_is_dropped(capfd):
    """What is written meanwhile is dropped, what comes later is not."""
    with held_back():
        noise()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


def test_noise_before_an_error_is_shown(capfd):
    """If an error is raised, what was written before it may say why, and is written after all."""

    def fail():
        noise()
        raise ImportError("broken")

    with pytest.raises(ImportError, match="broken"), held_back():
        fail()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "noise\nlater\n"


def test_what_python_has_buffered():
    """What Python was to write before comes out, and what it writes meanwhile is dropped."""
    script = """
import sys
from kerasext.cli.native_output import held_back
sys.stderr = open(2, "w", buffering=4096, closefd=False)
print("before", file=sys.stderr)
with held_back():
    print("meanwhile", file=sys.stderr)
print("after", file=sys.stderr, flush=True)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert run.stderr == b"before\nafter\n"


def test_closed_descriptor(keras_server):
    """A process without stderr, as of a daemon, goes on."""
    ended = keras_server.run(
        """
        import os
        from kerasext.cli.native_output import held_back
        os.close(2)
        with held_back():
            print("done")
        """
    )
    assert (ended.status, ended.out) == (0, "done\n")
