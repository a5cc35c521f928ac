"""Models of other systems as text of this language."""
