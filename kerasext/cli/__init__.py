"""The command line `kerasext`: predict, info, export, verify, report, index, merge."""

from kerasext.cli.main import main

__all__ = ["main"]
