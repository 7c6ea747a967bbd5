"""Whole jobs around `predict`: fast calls for few rows."""

from kerasext.inference.compile_predict import compile_predict

__all__ = ["compile_predict"]
