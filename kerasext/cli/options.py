"""Values of options that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_import(parser: argparse.ArgumentParser) -> None:
    """Adds the option for modules that a model needs."""
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        type=module_name,
        action="append",
        default=[],
        help="import a module that defines custom classes or functions of the model, from the "
        "current folder or an installed package; may be given several times",
    )


def names(text: str) -> list[str]:
    """Names with commas between them."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"must be names with commas between them, not {text!r}")
    return found


def names_or_file(text: str) -> list[str]:
    """Names with commas between them, or a text file of one name a line."""
    path = Path(text)
    if path.is_file():
        return lines(path)
    if path.suffix == ".txt":
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return names(text)


def module_name(text: str) -> str:
    """The name of a module, as `import` takes it."""
    if not all(part.isidentifier() for part in text.split(".")):
        raise argparse.ArgumentTypeError(f"must be as my_package.layers, not {text!r}")
    return text


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def share(text: str) -> float:
    """A number between 0 and 1, the ends left out."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, not {text!r}")
    return value


def thresholds(text: str) -> float | list[float]:
    """A number, or several with commas between them."""
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number, or several with commas between them, not {text!r}"
        ) from None
    return values[0] if len(values) == 1 else values


def lines(path: Path) -> list[str]:
    """The lines of a text file, in UTF-8."""
    text = path.read_text(encoding="utf-8-sig").removesuffix("\n")
    return text.split("\n") if text else []
