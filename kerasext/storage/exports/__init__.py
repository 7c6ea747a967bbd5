"""Prediction files for other tools. Nothing here loads these tools before it is asked for them."""
