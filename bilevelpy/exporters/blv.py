"""The optimality conditions as a model of this language, so that people can read what was done.

The text is a model of one level: complementarity stands as products of slack and multiplier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.blv_loops import BLV, TITLES, looped, looped_data
from bilevelpy.exporters.conditions import Line, Writer, conditions, slack_tree
from bilevelpy.exporters.expressions import Style, simple
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.naming import Namer, identifiers
from bilevelpy.exporters.parts import parts_of_conditions
from bilevelpy.importers import blv_text

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

STYLE = Style(
    simple("exp log sqrt sin cos tan atan sinh cosh tanh abs")
    | {"max": "max({0}, {1})", "min": "min({0}, {1})"}
)


def blv_names() -> Namer:
    """Identifiers that are no words of the language."""
    return identifiers(blv_text.TAKEN, limit=100)


class Blv:
    """Any class of functions that the KKT conditions exist for."""

    name: ClassVar[str] = "blv"
    title: ClassVar[str] = "the KKT conditions as a .blv model of one level, to be read"
    suffix: ClassVar[str] = ".blv"
    consumer: ClassVar[str] = "bilevelpy check {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The model."""
        options.form("blv", "products")
        found = conditions(bound, "a model of one level", options)
        columns, program = found.columns, bound.program
        namer = blv_names()
        write = Writer(bound, "a model of one level", STYLE, namer, columns.names)
        what = f"optimality conditions of the followers; products are at most {options.epsilon!r}"
        comments = [what, *(f"WARNING: {w}" for w in found.warnings)]
        made = loops(parts_of_conditions(found, paired_rows=True), write, BLV)
        if made is not None:
            comments.append(f"read with --data {stem}.data.json --data {stem}.data.npz")
            head = blv_text.header(f"{program.name}_kkt", program.title or "", comments)
            text = "\n".join([*head, *looped(found, made, options.epsilon)])
            return Files(text + "\n", looped_data(made), found.warnings)
        comments += blv_text.renamed(dict(zip(columns.names, write.names, strict=True)), "variable")
        out = blv_text.header(f"{program.name}_kkt", program.title or "", comments)
        variables = []
        for j, name in enumerate(write.names):
            low, high = float(columns.lower[j]), float(columns.upper[j])
            start = float(columns.start[j])
            begin = f" start {blv_text.number(start)}" if start else ""
            variables.append(name + blv_text.domain(low, high, bool(columns.integer[j])) + begin)
        sign = "minimize" if found.system.sign > 0 else "maximize"
        functions = found.objective.scaled(found.system.sign)
        objective = write.function(functions, 0, program.upper.objective.span)
        rows: list[str] = []
        kind = ""
        for line in write.lines(found.rows, found.kinds):
            if line.kind != kind:
                kind = line.kind
                rows.append(f"# {TITLES[kind]}")
            rows.append(_row(line))
        if found.pairs:
            rows.append("# slack * multiplier, both from 0 on")
        for pair in found.pairs:
            slack = write.tree(slack_tree(found, pair), pair.span)
            name = namer.name(f"comp.{pair.name}")
            product = f"({slack})*{write.names[pair.multiplier]}"
            rows.append(f"{name}: {product} <= {blv_text.number(options.epsilon)};")
        out += blv_text.level("upper", variables, f"{sign} {objective}", rows)
        return Files("\n".join(out) + "\n", warnings=found.warnings)


def _row(line: Line) -> str:
    return blv_text.row(line.name, line.body, line.low, line.high)
