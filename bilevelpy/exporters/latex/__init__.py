"""The two-level model in LaTeX."""
