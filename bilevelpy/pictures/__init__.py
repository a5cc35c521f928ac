"""What is worth drawing about a model and its answer: numbers for the figures of ``plotting``."""

from bilevelpy.pictures.draw import KINDS, draw, drawable, require

__all__ = ["KINDS", "draw", "drawable", "require"]
