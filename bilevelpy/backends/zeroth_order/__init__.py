"""Methods without second derivatives, or without derivatives at all."""
