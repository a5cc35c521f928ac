"""The page: sections in reading order, style and pictures within it, nothing fetched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bilevelpy.errors import UsageError
from bilevelpy.markup.html import escape
from bilevelpy.markup.style import CSS
from bilevelpy.reporting import sections
from bilevelpy.system import storage

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.model import Model
    from bilevelpy.result import Result


def page(model: Model, structure: Structure, result: Result) -> str:
    """The report as HTML that opens without a network."""
    title = model.program.title or model.name
    parts = [
        ("Answer", sections.answer(result)),
        ("Model", sections.mathematics(model)),
        ("Data", sections.data(model)),
        ("Structure", sections.structure(structure)),
        ("Decision", sections.decision(result)),
        ("Run", sections.run(model, structure, result)),
        ("Certificate", sections.certificate(result)),
        ("Solution", sections.solution(model, result)),
        ("Environment", sections.environment(result)),
    ]
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name, _ in parts)
    body = "\n".join(
        f'<section id="{name.lower()}"><h2>{name}</h2>\n{content}</section>'
        for name, content in parts
    )
    word = "good" if result.success else "poor"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: {escape(result.status)}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="sub">model <code>{escape(model.name)}</code>
<span class="status {word}">{escape(result.status)}</span></p>
<nav>{links}</nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def write(path: str | Path, model: Model, structure: Structure, result: Result) -> None:
    """Write the report; the file is complete or absent."""
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a report is written as .html, not as `{Path(path).name}`")
    storage.write_text(path, page(model, structure, result))
