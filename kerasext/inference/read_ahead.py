"""Reading from the disk while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Block = TypeVar("Block")


def read_ahead(
    read: Callable[[Part], Block], parts: Iterable[Part]
) -> Generator[Block, None, None]:
    """Yields what is read of each part; while a block is in use, a thread reads the next one.

    Nothing is read before the first block is asked for, and never more than one block ahead. When
    the generator is closed, the thread ends with the read that it is at, which the exit of the
    interpreter waits for.

    Args:
        read: Callable from a part to its block.
        parts: Iterable of what to read, at least one part.

    Returns:
        Generator of the blocks.

    Raises:
        BaseException: What `read` raised, when that block is asked for.
    """
    # One thread for all blocks: to each new one the allocator gives memory of its own.
    thread = ThreadPoolExecutor(1, thread_name_prefix="kerasext-read-ahead")
    try:
        following = iter(parts)
        reading = thread.submit(read, next(following))
        for part in following:
            block = reading.result()
            reading = thread.submit(read, part)
            yield block
        yield reading.result()
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
