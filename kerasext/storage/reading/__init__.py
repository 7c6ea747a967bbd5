"""From a file to arrays."""
