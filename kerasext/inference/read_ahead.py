"""Reading from the disk while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Block = TypeVar("Block")


def read_ahead(read: Callable[[Part], Block], parts: Iterable[Part]) -> Iterator[Block]:
    """Yields what is read of each part; while a block is in use, a thread reads the next one.

    Nothing is read before the first block is asked for, and never more than one block ahead. The
    iterator may be dropped at any time: the thread ends with the read that it is at, and so does a
    process that exits.

    Args:
        read: Callable from a part to its block.
        parts: Iterable of what to read, at least one part.

    Returns:
        Iterator over the blocks.

    Raises:
        BaseException: What `read` raised, when that block is asked for.
    """
    # One thread for all blocks: each new one would be given memory of its own by the allocator.
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
