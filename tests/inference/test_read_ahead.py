import threading

import pytest

from kerasext.inference.read_ahead import read_ahead


@pytest.fixture
def reading():
    """Threads that still read when the last read had time to end."""

    def find(wait=30):
        threads = [one for one in threading.enumerate() if "kerasext-read-ahead" in one.name]
        for thread in threads:
            thread.join(wait)
        return [thread for thread in threads if thread.is_alive()]

    return find


def test_blocks_come_in_order(reading):
    """Every part is read once, in order, and nothing is left running."""
    assert list(read_ahead(str, range(5))) == ["0", "1", "2", "3", "4"]
    assert list(read_ahead(str, range(1))) == ["0"]
    assert not reading()


def test_reading_is_one_block_ahead_and_in_a_thread():
    """Nothing is read before it is asked for, and then one block more, never in the caller."""
    seen = []
    came = threading.Semaphore(0)

    def read(part):
        seen.append((part, threading.current_thread()))
        came.release()
        return part

    blocks = read_ahead(read, range(5))
    assert seen == []
    for expected in range(4):
        assert next(blocks) == expected
        while [part for part, _ in seen] != list(range(expected + 2)):
            assert came.acquire(timeout=30)
    assert threading.current_thread() not in [thread for _, thread in seen]


@pytest.mark.parametrize("error", [OSError("the disk"), KeyboardInterrupt(), StopAsyncIteration()])
def test_an_error_comes_with_its_block(error, reading):
    """What reading raises is raised in the caller, after the blocks before it."""

    def read(part):
        if part == 2:
            raise error
        return part

    blocks = read_ahead(read, range(5))
    assert [next(blocks), next(blocks)] == [0, 1]
    with pytest.raises(type(error)):
        next(blocks)
    assert list(blocks) == []
    assert not reading()


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_an_iterator_that_is_left_leaves_no_thread(how, reading):
    """The thread ends with the read that it is at, and reads nothing more."""
    go_on = threading.Event()
    seen = []

    def read(part):
        seen.append(part)
        return part if part == 0 else go_on.wait(30)

    blocks = read_ahead(read, range(5))
    next(blocks)
    assert reading(wait=0)
    if how == "closed":
        blocks.close()
    del blocks
    go_on.set()
    assert not reading()
    assert seen in ([0], [0, 1])


def test_the_interpreter_ends_while_a_block_is_read(keras_server):
    """An exit in the midst of reading waits for that one block, however many are left."""
    script = """
        import threading
        from kerasext.inference.read_ahead import read_ahead

        begun, ending, seen = threading.Event(), threading.Event(), []

        def read(part):
            seen.append(part)
            if part == 1:
                begun.set()
                ending.wait()
                print(seen)
            return part

        blocks = read_ahead(read, range(1_000_000))
        print(next(blocks))
        begun.wait()
        # Called before `concurrent.futures` joins its threads; there is no public way.
        threading._register_atexit(ending.set)
    """
    ended = keras_server.run(script)
    assert (ended.status, ended.out) == (0, "0\n[0, 1]\n")
    assert "Traceback" not in ended.errors
