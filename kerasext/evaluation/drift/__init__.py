"""Whether predictions differ from earlier ones."""
