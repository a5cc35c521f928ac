"""Expressions: syntax tree to IR, with the levels and axes of every node checked.

``elaborate`` walks the tree. One kind of node a module: ``arithmetic``, ``calls`` and
``functions``, ``conditions``, ``binders`` (with ``binder_names`` and ``reductions``), ``indexing``
(with ``elements`` and ``points`` of axes), ``duals``.
"""
