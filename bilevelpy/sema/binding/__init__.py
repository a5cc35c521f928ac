"""Data meets the program: reading, conversion to arrays, alignment by label, sizes, checks.

- Reading: ``sources`` (who gives a name), ``npz``, ``textfiles``, ``reads``; ``convert`` makes
  arrays.
- Alignment: ``axes``, ``labelled``, ``counted``, ``lookup``, and ``params`` in the end.
- Checks: ``domains``, ``indices``, ``variables``, ``starts``; ``problems`` words what fails.
"""
