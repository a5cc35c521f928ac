"""The sections of a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.analysis.structure import rows_of
from bilevelpy.errors import BilevelError, ExportError, UsageError
from bilevelpy.exporters.latex.model import latex
from bilevelpy.markup import fragments
from bilevelpy.markup.html import Raw, escape, figure, items, number, table, words
from bilevelpy.markup.mathml import mathml
from bilevelpy.reductions.columns import labels_of

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.model import Model
    from bilevelpy.result import Result

# Entries of one variable that are listed in full.
MAX_ENTRIES = 2000
# Lower variables up to which a page samples the response by itself: each point is a lower solve.
MAX_SAMPLED = 1000
# Pictures of the answer beside that of the run.
MAX_PICTURES = 2


def _wide(content: str) -> str:
    """What is wider than a phone scrolls by itself."""
    return f'<div class="wide">{content}</div>'


def answer(r: Result) -> str:
    """Status, message, objectives, reports."""
    seconds = r.time.get("total", 0.0)
    steps = f"{r.iterations} iteration{'s' if r.iterations != 1 else ''}"
    parts = [
        f'<p class="key">{words(r.message)}</p>',
        f'<p class="sub">{escape(r.backend)}, {steps}, {seconds:.2f} s</p>',
        _wide(fragments.objectives(r)),
    ]
    if r.reports:
        parts.append(_wide(fragments.named(r.reports, "report")))
    if r.warnings:
        parts.append(items(f"warning: {w}" for w in r.warnings))
    return "\n".join(parts)


def mathematics(model: Model) -> str:
    """The formulas, printed from the tree that was solved, and the text."""
    source = next(iter(model.sources.values()))
    doc = "\n".join(
        line.removeprefix("##").strip()
        for line in source.text.splitlines()
        if line.startswith("##") and source.text.index(line) < source.text.find("model ")
    )
    try:
        formulas = _wide(mathml(latex(model.program)))
    except ExportError:  # of a length that nobody reads
        formulas = ""
    return "\n".join(
        [
            f"<p>{escape(doc)}</p>" if doc else "",
            formulas,
            f"<details><summary>{escape(Path(source.name).name)}</summary>"
            f"{code(source.text)}</details>",
        ]
    )


def code(text: str) -> str:
    """The text of a model, coloured."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter

    from bilevelpy.highlight import BlvLexer

    formatter = HtmlFormatter(noclasses=True, style="bw", nowrap=False)
    return str(highlight(text, BlvLexer(), formatter))


def data(model: Model) -> str:
    """Sizes and params: shape, range, where they come from."""
    program, bound = model.program, model.bound.data
    sizes = [(n, str(bound.sizes[a])) for n, a in program.axes.items() if a in bound.sizes]
    rows = []
    for name in program.params:
        array = bound.arrays.get(name)
        if array is not None:
            rows.append((name, *_summary(array), bound.origins.get(name, "")))
    parts = [_wide(table(sizes, ("axis", "elements")))] if sizes else []
    if rows:
        parts.append(_wide(table(rows, ("param", "shape", "range", "mean", "from"))))
    return "\n".join(parts) or "<p>The model needs no data.</p>"


def _summary(array: Any) -> tuple[str, str, str]:
    """Shape, range and mean; of a sparse matrix how much of it is there."""
    if not isinstance(array, np.ndarray):
        stored = f"{array.nnz} of {array.shape[0] * array.shape[1]} entries stored"
        return " x ".join(map(str, array.shape)), stored, ""
    shape = " x ".join(map(str, array.shape)) or "number"
    if not array.size or array.dtype.kind not in "fiub":
        return shape, "", ""
    if array.size == 1:
        return shape, number(float(array.ravel()[0])), ""
    low, high = float(np.min(array)), float(np.max(array))
    return shape, f"{number(low, 4)} to {number(high, 4)}", number(float(np.mean(array)), 4)


def structure(s: Structure) -> str:
    """Every fact with evidence, reason and place."""
    count = f"{s.dim_x} upper and {s.dim_y} lower variables, "
    count += f"{s.upper_constraints} upper and {s.lower_constraints} lower constraints, "
    count += f"{s.followers} follower{'s' if s.followers != 1 else ''}"
    # The folders of whoever solved it are of no use to a reader.
    rows = [(*row, Path(place).name) for *row, place in rows_of(s)]
    return f"<p>{escape(count)}</p>" + _wide(fragments.structure(rows))


def decision(r: Result) -> str:
    """Which backend and why."""
    return _wide(fragments.decision(r.decision)) if r.decision is not None else "<p>None.</p>"


def run(model: Model, s: Structure, r: Result) -> str:
    """Convergence, counts, and the pictures that the model has."""
    from bilevelpy.pictures import drawable

    parts = []
    if len(r.history) > 1:
        drawn = figure(r.plot(), "Convergence against seconds and against evaluations")
        parts.append(f"<figure>{drawn}</figure>")
    kinds = drawable(model.bound)
    if s.dim_y > MAX_SAMPLED:
        kinds = [k for k in kinds if k not in ("landscape", "response")]
    shown, refused = 0, dict[str, None]()
    for kind in kinds:
        words = f"{kind} of {model.name}"
        try:
            drawn = figure(r.plot(kind=kind, model=model), words)
        except (UsageError, BilevelError) as error:
            refused.setdefault(str(error))
            continue
        parts.append(f"<figure>{drawn}<figcaption>{escape(_CAPTIONS[kind])}</figcaption></figure>")
        shown += 1
        if shown == MAX_PICTURES:
            break
    parts += [f'<p class="sub">Not drawn: {escape(reason)}</p>' for reason in refused]
    counts = [(n, str(v)) for n, v in r.counts.items()]
    times = [(n, f"{v:.3f} s") for n, v in r.time.items()]
    if counts:
        parts.append(_wide(table(counts, ("evaluations", "count"), "numbers")))
    parts.append(_wide(table(times, ("phase", "time"), "numbers")))
    return "\n".join(parts)


_CAPTIONS = {
    "landscape": "The upper objective, the lower level solved at every point.",
    "response": "The response of the lower level along a line through the answer.",
    "network": "Flows and decisions on the arcs.",
    "images": "Images with the least and the greatest learned weights.",
    "values": "The entries of the variables: circles above, squares below.",
}


def certificate(r: Result) -> str:
    """What was recomputed independently."""
    if r.certificate is None:
        return "<p>None: the answer was not verified.</p>"
    return _wide(fragments.certificate(r.certificate))


def solution(model: Model, r: Result) -> str:
    """Every variable in short, then entry by entry as far as that can be read."""
    parts = [_wide(fragments.variables(r, labels_of(model.bound)))]
    if r.duals:
        parts.append("<h3>Shadow prices</h3>" + _wide(fragments.named(r.duals, "row")))
    groups = [("", r.upper)] + [(f"{k}.", vs) for k, vs in r.lower.items()]
    for prefix, group in groups:
        for name, array in group.items():
            if 8 < array.size <= MAX_ENTRIES:
                text = np.array2string(array, threshold=MAX_ENTRIES, precision=5, max_line_width=76)
                parts.append(
                    f"<details><summary>all {array.size} entries of {escape(prefix + name)}"
                    f"</summary><pre>{escape(text)}</pre></details>"
                )
    return Raw("\n".join(parts))


def environment(r: Result) -> str:
    """Versions, hashes, seed and options: what is needed to get the same numbers."""
    p = dict(r.provenance)
    rows: list[tuple[str, str]] = [
        (k, str(p[k])) for k in ("date", "python", "platform", "seed", "model_hash") if k in p
    ]
    rows += [(n, str(v)) for n, v in p.get("versions", {}).items()]
    rows += [
        (f"option {n}", str(v)) for n, v in p.get("options", {}).items() if v not in (None, {})
    ]
    return _wide(table(rows, ("what", "value")))
