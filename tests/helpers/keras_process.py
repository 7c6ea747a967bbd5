"""Runs scripts in processes of their own in which Keras is imported already, and not yet used.

Importing Keras and its backend takes seconds, a fork of a process that has them some milliseconds.
A script ends as one of `python -c` does: by its exceptions, its threads and its `atexit` functions.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

_NUMBER = struct.Struct("<q")


class Ended(NamedTuple):
    """How a script ended: its exit status (minus the signal that ended it), and what it printed."""

    status: int
    out: str
    errors: str


class KerasProcess:
    """A script that runs.

    Attributes:
        out: Text file. What the script prints, to be read line by line.
    """

    def __init__(self, server: socket.socket, request: Mapping[str, Any]) -> None:
        out, its_out = os.pipe()
        self._status, its_status = os.pipe()
        self._errors, name = tempfile.mkstemp()
        Path(name).unlink()
        self.out = os.fdopen(out)
        content = json.dumps(request).encode()
        fds = [its_out, self._errors, its_status]
        socket.send_fds(server, [_NUMBER.pack(len(content)), content], fds)
        os.close(its_out)
        os.close(its_status)
        self._pid = self._read_number(60)
        assert self._pid is not None, "Keras could not be imported"

    def interrupt(self) -> None:
        """Sends what Ctrl-C sends."""
        os.kill(self._pid, signal.SIGINT)

    def end(self, timeout: float = 120) -> Ended:
        """Waits for the end of the script, and kills it if it does not end in so many seconds."""
        status = self._read_number(timeout)
        if status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._read_number(timeout)
        os.close(self._status)
        os.lseek(self._errors, 0, os.SEEK_SET)
        with self.out, os.fdopen(self._errors) as file:
            out, errors = self.out.read(), file.read()
        assert status is not None, f"it did not end in {timeout} s\n{errors[-3000:]}"
        return Ended(status, out, errors)

    def _read_number(self, timeout: float) -> int | None:
        if not select.select([self._status], [], [], timeout)[0]:
            return None
        content = os.read(self._status, _NUMBER.size)
        return _NUMBER.unpack(content)[0] if content else None


class KerasServer:
    """A process that has imported Keras, and forks the processes of scripts."""

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # NumPy's threads would not be there after a fork.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()
        self._process.wait(60)

    def start(
        self,
        script: str,
        *args: object,
        cwd: str | os.PathLike[str] = ".",
        env: Mapping[str, str] | None = None,
        errors: Sequence[str] = (),
    ) -> KerasProcess:
        """Starts a script.

        Args:
            script: String. Python code, indented as you like.
            *args: What becomes `sys.argv[1:]`.
            cwd: Path. The folder to start in.
            env: Mapping of environment variables to set; those that importing Keras and its
                backend reads come too late.
            errors: Names of the built-in warnings that are errors.
        """
        request = {
            "script": textwrap.dedent(script),
            "args": [str(argument) for argument in args],
            "cwd": os.fspath(cwd),
            "env": dict(env or {}),
            "errors": list(errors),
        }
        return KerasProcess(self._socket, request)

    def run(self, script: str, *args: object, **options: Any) -> Ended:
        """Starts a script, and waits for its end."""
        return self.start(script, *args, **options).end()


def _next_request(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    header, fds, _, _ = socket.recv_fds(requests, _NUMBER.size, 3)
    if not header:
        os._exit(0)  # the tests are over
    (missing,) = _NUMBER.unpack(header)
    content = b""
    while len(content) < missing:
        content += requests.recv(missing - len(content))
    return json.loads(content), fds


def _serve(requests: socket.socket) -> dict[str, Any]:
    """Forks for each request; returns in the forked process, with what it is to run."""
    while True:
        request, (out, errors, status) = _next_request(requests)
        if not os.fork():
            break
        for fd in (out, errors, status):
            os.close(fd)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    # A process in between waits for the script, so that the server need not.
    if pid := os.fork():
        os.close(out)
        os.write(status, _NUMBER.pack(pid))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, _NUMBER.pack(code))
        os._exit(0)
    requests.close()
    os.close(status)
    for fd, standard in ((out, 1), (errors, 2)):
        os.dup2(fd, standard)
        os.close(fd)
    return request


def _run(request: Mapping[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    for name in request["errors"]:
        warnings.simplefilter("error", getattr(importlib.import_module("builtins"), name))
    sys.argv = ["-c", *request["args"]]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    exec(compile(request["script"], "<string>", "exec"), vars(main))  # noqa: S102 - of the tests


if __name__ == "__main__":
    sys.path.insert(0, "")  # as for `python -c`
    importlib.import_module("keras")
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
