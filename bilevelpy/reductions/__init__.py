"""Reformulations of a bound program: scalar rows, optimality conditions in place of followers."""
