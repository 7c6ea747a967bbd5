"""What the model says of one head: its task, and the outputs of the compiled step."""
