"""Several files that read as one."""
