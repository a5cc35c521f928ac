"""Solutions written by hand in NumPy and SciPy, one problem at a time.

They share nothing with the package: tests compare with their values, benchmarks with their times.
Each solves the lower problem to rounding, forms the hypergradient by the adjoint of the optimality
conditions, and hands both to ``scipy.optimize``, as a specialist would for the one problem.
"""
