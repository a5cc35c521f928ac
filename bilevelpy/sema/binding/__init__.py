"""Data meets the program: reading, conversion to arrays, alignment by label, sizes, checks."""
