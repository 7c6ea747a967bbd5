"""Ctrl-C at a chosen line of the library."""

import sys
from pathlib import Path

import kerasext

ROOT = Path(kerasext.__file__).parent


def interrupted(line, function, *arguments):
    """Runs a function with Ctrl-C at the n-th line of kerasext; returns whether it came."""

    def trace(frame, event, _):
        nonlocal line
        if not Path(frame.f_code.co_filename).is_relative_to(ROOT):
            return None
        line -= event == "line"
        if line == 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(previous)
    return False
