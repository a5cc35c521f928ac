"""Ranges, least values and signs of expressions, over the domains of what they read."""
