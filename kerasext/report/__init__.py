"""A page that shows what is in a prediction file."""

from kerasext.report.write_report import write_report

__all__ = ["write_report"]
