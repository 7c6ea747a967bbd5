"""The options of whoever writes predictions: declared and checked here, and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, get_args

import numpy as np

from kerasext.callbacks.row_columns import Ids
from kerasext.callbacks.step_rows import Keep
from kerasext.common import to_json
from kerasext.storage import (
    Compression,
    Mode,
    Ragged,
    check_compression,
    check_name_list,
    check_ragged,
)

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Function = TypeVar("Function", bound=Callable[..., Any])


class WriterOptions(TypedDict, total=False):
    """The options, as keyword arguments; `HDF5PredictionWriter` says what each of them does."""

    mode: Mode
    resume_check: bool
    outputs: Sequence[str] | None
    dtypes: Mapping[str, DTypeLike] | None
    compression: Compression | Mapping[str, Compression]
    ragged: Ragged
    ids: Ids
    targets: Any
    keep: Keep | None
    metadata: Mapping[str, Any] | None
    commit_interval: float
    fsync: bool
    queue_bytes: int


@dataclass(frozen=True, kw_only=True)
class CheckedOptions:
    """The options with their defaults, checked.

    Args:
        mode: As for `HDF5PredictionWriter`. All other options are, too.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If an option is out of range.
    """

    mode: Mode = "x"
    resume_check: bool = True
    outputs: Sequence[str] | None = None
    dtypes: Mapping[str, DTypeLike] | None = None
    compression: Compression | Mapping[str, Compression] = "auto"
    ragged: Ragged = False
    ids: Ids = None
    targets: Any = False
    keep: Keep | None = None
    metadata: Mapping[str, Any] | None = None
    commit_interval: float = 1.0
    fsync: bool = False
    queue_bytes: int = 32 * 1024 * 1024
    metadata_json: str = field(init=False)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(
                f"`mode` must be one of {get_args(Mode)}. Received: mode={self.mode!r}"
            )
        if not (self.keep is None or callable(self.keep)):
            raise TypeError(f"`keep` must be a callable. Received: keep={self.keep!r}")
        if not self.commit_interval > 0:
            raise ValueError(
                "`commit_interval` must be positive. "
                f"Received: commit_interval={self.commit_interval}"
            )
        if self.queue_bytes < 0:
            raise ValueError(
                f"`queue_bytes` must not be negative. Received: queue_bytes={self.queue_bytes}"
            )
        checked: dict[str, Any] = {
            "dtypes": {name: _checked(name, d) for name, d in (self.dtypes or {}).items()},
            "compression": check_compression(self.compression),
            "ragged": check_ragged(self.ragged),
            "metadata": dict(self.metadata or {}),
            "metadata_json": to_json(dict(self.metadata or {}), "metadata"),
        }
        if self.outputs is not None:
            checked["outputs"] = check_name_list("outputs", self.outputs)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def takes_writer_options(function: Function) -> Function:
    """Shows the options in the signature of a function that takes them as `**options`.

    `help` and editors show them then, with their defaults.
    """
    signature = inspect.signature(function)
    own = list(signature.parameters.values())
    options = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=option.type,
        )
        for option in fields(CheckedOptions)
        if option.init
    ]
    shown = signature.replace(parameters=[*own[:-1], *options])
    vars(function)["__signature__"] = shown
    return function


def _checked(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = np.dtype(object)
    if checked.kind not in "biufcS":
        raise TypeError(
            "`dtypes` must be of numbers, or 'S' and a number of bytes for strings. "
            f"Received: dtypes[{name!r}]={dtype!r}"
        )
    return checked
