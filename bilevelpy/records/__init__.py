"""What is kept of a run: where it comes from, checkpoints, results read back."""
