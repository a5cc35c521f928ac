"""Reports: one page that says everything about a solved model. Needs the extra ``report``."""

from bilevelpy.reporting.page import page, write

__all__ = ["page", "write"]
