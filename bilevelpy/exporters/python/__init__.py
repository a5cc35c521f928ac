"""Programs in Python: Pyomo, CVXPY, BLVPY, CasADi, SymPy."""
