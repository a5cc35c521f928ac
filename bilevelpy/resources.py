"""Text files that come with the package, in a wheel and in a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def error_page(code: str) -> str | None:
    """The page about a diagnostic code (Markdown), or None where there is none."""
    name = f"{code}.md"
    packaged = files("bilevelpy") / "docs_errors" / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    # An editable install and a checkout have the pages where they are edited.
    page = Path(__file__).parents[1] / "docs" / "errors" / name
    return page.read_text(encoding="utf-8") if page.is_file() else None
