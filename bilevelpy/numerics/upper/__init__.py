"""Descent on the reduced objective Phi(x) = F(x, y(x))."""
