"""Whole inference jobs: joins `callbacks` and `storage` to Keras's `predict`."""
