"""What an output is, in memory and in the file."""
