"""First-order methods that compare f with the least value that it has at x."""
