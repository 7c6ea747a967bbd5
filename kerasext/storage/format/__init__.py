"""What stands where in a prediction file, byte for byte."""
