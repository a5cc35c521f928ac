"""Write the gallery: a page and a picture for every model of ``models/``, solved now.

``python docs/make_gallery.py`` writes the pages whose model has changed, and removes those of
models that are gone; ``--all`` writes all, ``--slow`` also those that take minutes, names write
only these. A model that comes without data is solved with that of its experiment. A page is never
edited by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gallery_data import Given, data_of

ROOT = Path(__file__).resolve().parents[1]
MODELS, GALLERY = ROOT / "models", ROOT / "docs" / "gallery"
MAX_VALUES = 8
TIME_LIMIT = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Write what is out of date; returns how many pages could not be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="models to write (all that have changed)")
    parser.add_argument("--all", action="store_true", help="also those that have not changed")
    parser.add_argument("--slow", action="store_true", help="also those that take minutes")
    given = parser.parse_args(arguments)
    catalogue = tomllib.loads((MODELS / "catalog.toml").read_text(encoding="utf-8"))
    paths = {p.stem: p for p in sorted(MODELS.rglob("*.blv")) if "data" not in p.parts}
    for page in GALLERY.glob("*.md"):
        if page.stem not in paths and page.stem != "index":
            page.unlink()
            page.with_suffix(".png").unlink(missing_ok=True)
    failures = 0
    for name, path in paths.items():
        if given.names and name not in given.names:
            continue
        page = GALLERY / f"{name}.md"
        entry = catalogue.get(name, {})
        if not given.names and not given.all and is_current(page, path):
            continue
        if entry.get("slow") and not given.slow:
            continue
        print(name, file=sys.stderr, flush=True)
        try:
            page.write_text(write(path, entry), encoding="utf-8")
        except Exception as error:
            print(f"  {type(error).__name__}: {error}", file=sys.stderr)
            failures += 1
    (GALLERY / "index.md").write_text(index(paths, catalogue), encoding="utf-8")
    return failures


def without_data(path: Path, entry: dict[str, Any]) -> str:
    """The page of a model that waits for data: its mathematics, and what has to be bound."""
    from bilevelpy.diagnostics import Source
    from bilevelpy.exporters.latex.model import latex
    from bilevelpy.sema import check

    text = path.read_text(encoding="utf-8")
    program = check(Source(str(path), text)).program
    if program is None:
        raise ValueError(f"{path.name} is no correct model")
    wanted = [p.name for p in program.params.values() if p.default is None]
    names = ", ".join(f"`{n}`" for n in [*wanted, *program.externs])
    rows = [("application", entry["application"])] if "application" in entry else []
    parts = [
        f"# {program.title or program.name}",
        f"<!-- written by docs/make_gallery.py: model {mark(path)} -->",
        about(text),
        table(("", ""), rows) if rows else "",
        "## Model",
        f"```math\n{latex(program)}\n```",
        f"```blv\n{text.strip()}\n```",
        "## Run it",
        f"The model comes without data. It needs {names}: see [data](../tutorial/2-data.md).",
        f"```console\n$ bilevelpy check {path.relative_to(ROOT).as_posix()}\n```",
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def mark(path: Path) -> str:
    """What a page depends on: the text of the model."""
    return hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()


def is_current(page: Path, path: Path) -> bool:
    """Whether a page was written for this text of the model."""
    return page.is_file() and f"model {mark(path)}" in page.read_text(encoding="utf-8")


def write(path: Path, entry: dict[str, Any]) -> str:
    """The page of a model; its picture is written beside it."""
    import bilevelpy as bl
    from bilevelpy.exporters.latex.model import latex

    limits = {"time_limit": TIME_LIMIT * (10 if entry.get("slow") else 1)}
    source = None
    try:
        model = bl.load(path)
    except bl.DataError:
        source = data_of(path.stem)
        if source is None:
            return without_data(path, entry)
        model = bl.load(path, data=source.data, externs=source.externs)
        limits["max_iter"] = source.max_iter
    structure = bl.analyze(model)
    result = bl.solve(model, **limits)
    picture = draw(model, result)
    where = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    parts = [
        f"# {model.program.title or model.name}",
        f"<!-- written by docs/make_gallery.py: model {mark(path)} -->",
        about(text),
        facts(entry, structure),
        "## Model",
        f"```math\n{latex(model.program)}\n```",
        f"```blv\n{text.strip()}\n```",
        "## Answer",
        "" if source is None else f"With {source.words}.",
        f"`{result.status}`: {plain(result.message)}",
        answer(result),
    ]
    if picture:
        parts.append(f"![{picture}]({model_file(path)}.png)")
    parts += [
        "## Decision",
        f"**{result.backend}**",
        "\n".join(f"- {plain(w)}" for w in result.decision.why),
        "## Certificate",
        certificate(result),
        "## Run it",
        commands(path, where, source),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def commands(path: Path, where: str, source: Given | None) -> str:
    """The lines that solve a model: from its file alone, or through the script of its data."""
    if source is None:
        lines = [f"bilevelpy solve {where}", f"bilevelpy explain {where}",
                 f"bilevelpy report {where} --out {path.stem}.html"]  # fmt: skip
    else:
        lines = [f"bilevelpy check {where}", source.command]
    return "\n".join(["```console", *(f"$ {line}" for line in lines), "```"])


def model_file(path: Path) -> str:
    """The stem of the files of a model."""
    return path.stem


def about(text: str) -> str:
    """The `##` lines at the head of a model file."""
    lines = []
    for line in text.splitlines():
        if line.startswith("##"):
            lines.append(line.lstrip("#").strip())
        elif line.strip() and not line.startswith("#"):
            break
    return plain(" ".join(lines))


def plain(text: str) -> str:
    """Text in which Markdown sees no formulas and no markup."""
    parts = re.split(r"(`[^`]*`)", text.replace("\n", " "))
    return "".join(p if p.startswith("`") else re.sub(r"([$*_<\[])", r"\\\1", p) for p in parts)


def facts(entry: dict[str, Any], s: Any) -> str:
    """What kind of model it is."""
    rows = [("application", entry["application"])] if "application" in entry else []
    rows += [
        ("size", f"{s.dim_x} upper and {s.dim_y} lower variables, {s.upper_constraints} upper and "
                 f"{s.lower_constraints} lower constraints"),
        ("lower level", f"{s.lower.form.value}, {s.convexity.value} ({s.convexity.evidence})"),
    ]  # fmt: skip
    if "checked" in entry:
        rows.append(("expected value from", entry["checked"]))
    return table(("", ""), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(plain(c) for c in row)} |" for row in rows]
    return "\n".join(lines)


def answer(r: Any) -> str:
    """Objectives, variables, reports."""
    rows = [("upper objective", short(r.F))]
    rows += [(f"objective of {n}", short(v)) for n, v in r.f.items()]
    groups = [r.upper, *r.lower.values()]
    rows += [(name, values(array)) for group in groups for name, array in group.items()]
    rows += [(name, values(value)) for name, value in r.reports.items()]
    return table(("", "value"), rows)


def values(value: Any) -> str:
    """The first entries of an array and its range."""
    import numpy as np

    flat = np.asarray(value, dtype=float).ravel()
    if flat.size <= MAX_VALUES:
        return ", ".join(short(v) for v in flat)
    head = ", ".join(short(v) for v in flat[: MAX_VALUES - 2])
    return f"{head}, ... ({flat.size} values in {short(flat.min())} to {short(flat.max())})"


def short(value: float) -> str:
    """Six digits; what is zero to rounding is zero."""
    if not math.isfinite(value):
        return "not known" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return "0" if abs(value) < 1e-12 else f"{value:.6g}"


def certificate(r: Any) -> str:
    """Kind and reasons; residuals that move with the machine are left to the reader's own run."""
    if r.certificate is None:
        return "none"
    kind = f"**{r.certificate.kind}**"
    return kind + "\n\n" + "\n".join(f"- {plain(reason)}" for reason in r.certificate.reasons)


def draw(model: Any, result: Any) -> str:
    """The most telling picture; returns its words, or nothing where there is none."""
    import bilevelpy as bl
    from bilevelpy.pictures import drawable

    words = {
        "network": "flows and decisions on the arcs",
        "images": "images with the least and the greatest weights",
        "landscape": "the upper objective with the lower level solved at every point",
        "response": "the response along a line through the answer",
        "values": "the entries of the variables",
        "convergence": "the run",
    }
    kinds = drawable(model.bound)
    if len(result.history) > 1:
        kinds.append("convergence")
    target = GALLERY / f"{Path(next(iter(model.sources))).stem}.png"
    for kind in kinds:
        try:
            figure = result.plot(kind=kind, model=model)
        except bl.BilevelError:
            continue
        save(figure, target)
        return words[kind]
    return ""


def save(figure: Any, target: Path) -> None:
    """A small PNG: few colours are enough for lines and letters."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    small = Image.open(stream).convert("RGB").quantize(48, dither=Image.Dither.NONE)
    small.save(target, optimize=True)


def index(paths: dict[str, Path], catalogue: dict[str, Any]) -> str:
    """The list of all pages with one line each."""
    rows = []
    for name, path in paths.items():
        if not (GALLERY / f"{name}.md").is_file():
            continue
        entry = catalogue.get(name, {})
        head = re.search(r'^model \w+(?: "([^"]*)")?', path.read_text(encoding="utf-8"), re.M)
        title = head[1] if head is not None and head[1] else name
        kind, use = entry.get("class", ""), entry.get("application", "")
        rows.append(f"| [{plain(title)}]({name}.md) | {plain(use)} | {plain(kind)} |")
    lines = [
        "# Gallery",
        "",
        "Every model of the catalogue, solved: its formulas, the answer, a picture, which method",
        "was chosen and why, what the certificate says. The pages are written by `make gallery`.",
        "",
        "| model | application | lower level |",
        "| --- | --- | --- |",
        *rows,
        "",
        "```{toctree}",
        ":hidden:",
        ":glob:",
        "",
        "*",
        "```",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
