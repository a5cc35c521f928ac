"""Rows into rows, the followers kept.

- Functions: ``fixing`` of columns, ``difference``, ``intervals`` that hold their values.
- Units: ``scales``, ``normalize``.
- Kinks: ``lift`` (rows), ``epigraphs`` (programs), ``norms``; quotients: ``fractional``.
- Followers: ``separate`` where they fall apart, ``determined`` what all best responses share.
"""
