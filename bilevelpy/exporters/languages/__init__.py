"""Models in the languages of other systems: AMPL, GAMS, BilevelJuMP."""
