"""Fitting calibration, prediction sets, abstention and thresholds to rows with targets."""
