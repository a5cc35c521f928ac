"""Programs of one level made linear, convex or mixed-integer.

- Complementarity: ``mixed`` (SOS1 sets, indicators, big-M), ``strong_duality``, and
  ``integer_duality`` where products have an integer in them (``integer_products``).
- What the leader minimises: ``linear_objective``, ``linear_parts``, ``convex_objective``.
"""
