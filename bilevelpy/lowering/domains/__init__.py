"""Sets with a cheap projection."""
