"""The version of kerasext; files carry it as their origin."""

__version__ = "0.2.0.dev0"
