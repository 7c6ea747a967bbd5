"""Telling whether a model has run out of memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that of an allocation that did not fit, on any backend.

    NumPy raises `MemoryError`, TensorFlow `ResourceExhaustedError`, torch `OutOfMemoryError`, and
    XLA, below TensorFlow and JAX, an error of its own whose text begins with the status.
    """
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}:
        return True
    return isinstance(error, Exception) and "RESOURCE_EXHAUSTED" in str(error)
