"""Optimality conditions in place of the followers.

``kkt`` makes ``conditions`` where ``validity`` allows it, ``pessimistic`` takes the worst of the
best responses, ``choice_rows`` stand for followers with a ranking. What is known of multipliers:
``multiplier_bounds``, ``shared_multipliers``; ``prices`` reads them off a solution.
"""
