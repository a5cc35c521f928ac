"""Text to syntax tree, with messages for what is wrong, and the formatter."""
