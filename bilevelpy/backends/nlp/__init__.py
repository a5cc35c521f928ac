"""``nlp``: local optima of problems with smooth constrained followers."""
