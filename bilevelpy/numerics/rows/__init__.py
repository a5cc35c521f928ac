"""The response y(x) and its adjoint, where the lower level has rows."""
