"""Which outputs are meant by their names, or by those of groups of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from kerasext.storage.format.layout import with_groups


def check_name_list(
    argument: str, names: Sequence[str], *, may_be_empty: bool = False
) -> tuple[str, ...]:
    """Checks an argument that lists names, and returns them.

    Args:
        argument: String. What the argument is called.
        names: Sequence of strings.
        may_be_empty: Bool. Whether there may be none. Defaults to `False`.

    Raises:
        TypeError: If it is no list of strings; one string is a list of letters.
        ValueError: If it is empty.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"`{argument}` must be a list of names. Received: {argument}={names!r}")
    if not names and not may_be_empty:
        raise ValueError(f"`{argument}` must name at least one output. Received: {argument}=[]")
    return tuple(names)


def find_outputs(
    names: Iterable[str],
    chosen: Iterable[str],
    *,
    argument: str,
    where: str = "that are written",
    groups: bool = True,
) -> list[str]:
    """The outputs that an argument names, in its order, each once.

    Args:
        names: Names of the outputs that there are.
        chosen: Names of outputs or of groups of them.
        argument: String. What the argument is called.
        where: String. Which outputs there are, for the message. Defaults to those of a step.
        groups: Bool. Whether groups can be named. Defaults to `True`.

    Raises:
        ValueError: If there is no output of a name, with the nearest that there is.
    """
    present = list(names)
    found: dict[str, None] = {}
    for name in chosen:
        members = [
            output
            for output in present
            if output == name or (groups and output.startswith(f"{name}/"))
        ]
        if not members:
            or_groups = ", or groups of them" if groups else ""
            raise ValueError(
                f"`{argument}` must name outputs {where}{or_groups}; "
                f"{_remedy(present, str(name), groups=groups)}. Received: {name!r}"
            )
        found.update(dict.fromkeys(members))
    return list(found)


def _remedy(present: Sequence[str], name: str, *, groups: bool) -> str:
    possible = with_groups(present) if groups else present
    near = difflib.get_close_matches(name, sorted(possible), n=1)
    return f"the nearest is {near[0]!r}" if near else f"they are {sorted(present)}"
