"""Methods that read a batch of the data at a time."""
