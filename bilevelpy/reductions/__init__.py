"""Reformulations of a bound program: scalar rows, optimality conditions in place of followers.

- Scalars: ``columns``, ``rows``, ``tables`` (what every reformulation reads); functions as
  coefficients (``polynomial``, ``monomials``) or ``scalar`` trees, made by ``expand``.
- Followers replaced: ``kkt`` makes ``conditions`` where ``validity`` allows it, ``lift``,
  ``epigraphs`` and ``norms`` take kinks away before; ``strong_duality`` and ``pessimistic`` are
  other programs of one level.
- Pairs as solvers read them: ``mixed``, with ``multiplier_bounds``.
- Products of the leader made linear or convex: ``linear_objective``, ``linear_parts``,
  ``convex_objective``, ``whole_products``, ``whole_duality``, ``whole_responses``.
- Ranges and units: ``intervals``, ``scales``, ``normalize``.
"""
