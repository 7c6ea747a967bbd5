"""A `BackgroundWriter` whose thread can be held, and that says when its caller has to wait."""

import threading
from typing import Any

from kerasext.storage import BackgroundWriter


class Gate:
    """A `to_arrays` that lets the first step pass and holds the others until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.calls = 0

    def __call__(self, step: Any) -> Any:
        self.calls += 1
        assert self.calls == 1 or self.open.wait(60)
        return step


class TellingWriter(BackgroundWriter):
    """A writer whose event `is_waited_for` is set once a caller waits for room or for the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_waited_for = threading.Event()

    def _stall(self) -> None:
        self.is_waited_for.set()
        super()._stall()

    def _stop(self, how: Any) -> None:
        self.is_waited_for.set()
        super()._stop(how)
