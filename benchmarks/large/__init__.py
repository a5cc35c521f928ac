"""Larger instances with a fixed seed, solved by the package and by hand-written code in one run."""
