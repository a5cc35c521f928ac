"""Convex quadratic programs by working sets, each for the rows that it meets."""
