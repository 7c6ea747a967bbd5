"""From a step to chunks and commits."""
