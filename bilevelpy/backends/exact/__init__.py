"""``exact``: global optima of programs with complementarity, proved by SCIP."""
