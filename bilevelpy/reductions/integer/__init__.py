"""Integer followers whose best responses are known to be multiples of a number, or vertices."""
