"""What is counted of rows and their targets, and the figures that follow."""
