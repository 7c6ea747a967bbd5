"""Telling whether a model has run out of memory."""

_TEXTS = ("RESOURCE_EXHAUSTED", "DefaultCPUAllocator: ")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that of an allocation that did not fit, on any backend.

    NumPy raises `MemoryError`, TensorFlow `ResourceExhaustedError` and torch `OutOfMemoryError`.
    XLA, below TensorFlow and JAX, and torch without an accelerator are told by the text only.
    """
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}:
        return True
    return isinstance(error, Exception) and any(text in str(error) for text in _TEXTS)
