"""The documentation: Sphinx with MyST. ``make docs`` builds it with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bilevelpy import __version__

project = "bilevelpy"
author = "The bilevelpy authors"
copyright = "The bilevelpy authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "extensions.mathml",
    "extensions.methods",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "extensions"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"bilevelpy {version}"
html_static_path = ["_static"]
html_css_files = ["blv.css"]
html_copy_source = False
html_show_sphinx = False

napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
# The types of optional libraries are names in signatures, nothing to be imported.
autodoc_use_legacy_class_based = False


def with_further_pages(app: Any, name: str, source: list[str]) -> None:
    """Pages that the index does not name join it under a caption of their own."""
    if name != "index":
        return
    folder = Path(__file__).parent
    found = [*folder.glob("*.md"), *folder.glob("language/*.md")]
    pages = {p.relative_to(folder).with_suffix("").as_posix() for p in found}
    further = sorted(pages - {"index"} - set(source[0].splitlines()))
    if further:
        listed = "\n".join(further)
        source[0] += f"\n```{{toctree}}\n:caption: More\n:maxdepth: 1\n\n{listed}\n```\n"


def setup(app: Any) -> None:
    """The lexer is registered by its entry point; a checkout that is not installed needs this."""
    from bilevelpy.highlight import BlvLexer

    app.add_lexer("blv", BlvLexer)
    app.connect("source-read", with_further_pages)


# Pages of errors show wrong text on purpose; the tests read every other block with the parser.
suppress_warnings = ["misc.highlighting_failure"]
