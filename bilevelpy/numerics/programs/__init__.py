"""Small programs of scalar columns and rows, and their solvers."""
