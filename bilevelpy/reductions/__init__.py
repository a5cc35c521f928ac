"""Reformulations of a bound program: scalar rows, optimality conditions in place of followers.

Here: scalars and rows, what every reformulation reads (``columns``, ``rows``, ``tables``), and
functions as coefficients (``polynomial``, ``monomials``) or ``scalar`` trees, made by ``expand``.

The folders, each above those that it uses:

- ``linearization``: programs of one level made linear, convex or mixed-integer.
- ``optimality``: conditions of optimality in place of the followers.
- ``integer``: followers whose best responses are multiples of a number, or at vertices.
- ``rewriting``: rows into rows. Units, ranges, fixed columns, kinks, followers that fall apart.
"""
