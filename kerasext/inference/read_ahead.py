"""Reading from the disk while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Block = TypeVar("Block")


def read_ahead(
    read: Callable[[Part], Block], parts: Iterable[Part], thread: ThreadPoolExecutor | None = None
) -> Generator[Block, None, None]:
    """Yields what is read of each part; while a block is in use, a thread reads the next one.

    Nothing is read before the first block is asked for, and never more than one block ahead. When
    the generator is closed, the thread ends with the read that it is at, which the exit of the
    interpreter waits for.

    Args:
        read: Callable from a part to its block.
        parts: Iterable of what to read, at least one part.
        thread: Executor with one thread. Defaults to `None`, for one of its own.

    Returns:
        Generator of the blocks.

    Raises:
        BaseException: What `read` raised, when that block is asked for.
    """
    own = None if thread is not None else ThreadPoolExecutor(1, "kerasext-read-ahead")
    executor = thread or own
    assert executor is not None
    following = iter(parts)
    reading = executor.submit(read, next(following))
    try:
        for part in following:
            block = reading.result()
            reading = executor.submit(read, part)
            yield block
        yield reading.result()
    finally:
        reading.cancel()
        if own is not None:
            own.shutdown(wait=False)
