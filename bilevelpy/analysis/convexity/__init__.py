"""Whether terms are convex, and how strongly.

``judge`` asks cvxpy about the ``stand_ins`` of a term. ``quadratic``, ``norms``, ``log_convex``,
``relative_entropy``, ``monotone_products`` and ``plain`` know forms that its rules miss; what none
of them covers is an ``offence``. ``modulus`` bounds curvature from below; ``corner`` and
``diagonal`` serve it.
"""
