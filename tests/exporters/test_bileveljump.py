"""BilevelJuMP without Julia: the syntax by a parser of its language, the numbers from the macros.

Julia and its packages are in no package index of Python, Node or Debian.
"""

import math
import re

import families
import numpy as np
import problems
import pytest

import bilevelpy as bl
from bilevelpy.reductions.rows import system

TEXTS = [text for text, *_ in (*families.LINEAR[:5], *families.QUADRATIC[:4])]
TEXTS += [problems.P1, problems.B88, problems.DEMPE, problems.TOLL, problems.FLOW]
MACRO = re.compile(r"@(\w+)\((Upper|Lower)\(model\), (.*)\)$", re.MULTILINE)


def written(text, tmp_path):
    path = tmp_path / "m.jl"
    bl.export(bl.parse(text), to="bileveljump", path=path)
    return path.read_text()


@pytest.fixture
def errors():
    """The places at which a text is no Julia."""
    tree_sitter = pytest.importorskip("tree_sitter", reason="needs tree-sitter-julia")
    julia = pytest.importorskip("tree_sitter_julia", reason="needs tree-sitter-julia")
    parser = tree_sitter.Parser(tree_sitter.Language(julia.language()))

    def find(text):
        found, nodes = [], [parser.parse(text.encode()).root_node]
        while nodes:
            node = nodes.pop()
            if node.is_error or node.is_missing:
                found.append(node.start_point)
            nodes += node.children
        return found

    return find


@pytest.mark.parametrize("text", TEXTS, ids=lambda t: t.split()[1])
def test_syntax(text, tmp_path, errors):
    shown = written(text, tmp_path)
    assert errors(shown) == []
    assert errors(shown.replace("@objective(Lower(model), Min", "@objective(Lower(model, Min", 1))


@pytest.mark.parametrize("text", TEXTS, ids=lambda t: t.split()[1])
def test_both_levels_by_their_macros(text, tmp_path):
    found = system(bl.parse(text).bound)
    columns, owner, names = {}, {}, []
    objective, rows = {}, {"Upper": [], "Lower": []}
    point = np.random.default_rng(0).uniform(0.1, 2.0, found.columns.count)
    macros = MACRO.findall(written(text, tmp_path))
    for kind, level, inside in macros:
        if kind == "variable":
            inside, _, whole = inside.partition(", integer = ")
            parts = re.split(r" <= | >= ", inside)
            name = next(p for p in parts if not re.match(r"[-\d]", p))
            ends = [float(p) for p in parts if p != name]
            low = ends[0] if inside.find(name) > 0 or ">=" in inside else -math.inf
            columns[name] = (low, ends[-1] if inside.endswith(parts[-1]) and parts[-1] != name
                             else math.inf, whole == "true")  # fmt: skip
            owner[name] = level
            names.append(name)
    # Upper variables are declared first, then lower ones, each in the order of the model.
    order = [*found.upper_columns, *found.lower_columns]
    assert [owner[n] for n in names].count("Upper") == len(found.upper_columns)
    for name, j in zip(names, order, strict=True):
        assert columns[name] == (
            found.columns.lower[j], found.columns.upper[j], bool(found.columns.integer[j])
        )  # fmt: skip
    space = {name: float(point[j]) for name, j in zip(names, order, strict=True)}
    for kind, level, inside in macros:
        if kind == "objective":
            objective[level] = eval(inside.removeprefix("Min, ").replace("^", "**"), space)
        elif kind == "constraint":
            body = inside.partition(", ")[2]
            parts = [eval(p.replace("^", "**"), space) for p in re.split(r" (?:<=|>=|==) ", body)]
            signs = re.findall(r" (<=|>=|==) ", body)
            value = parts[1] if len(parts) == 3 else parts[0]
            low = parts[0] if len(parts) == 3 else parts[1] if signs[0] != "<=" else -math.inf
            high = parts[-1] if signs[-1] != ">=" else math.inf
            rows[level].append((value, low, high))
    assert objective["Upper"] == pytest.approx(found.objective.value(point)[0])
    assert objective["Lower"] == pytest.approx(found.lower_objectives.value(point)[0])
    for level, known in (("Upper", found.upper_rows), ("Lower", found.lower_rows)):
        expected = zip(known.functions.value(point), known.lower, known.upper, strict=True)
        assert np.array(rows[level]).ravel() == pytest.approx(np.array(list(expected)).ravel())


def test_the_solver_has_the_sets_of_the_mode(tmp_path):
    # HiGHS has no SOS1 sets; SCIP does.
    shown = written(problems.P1, tmp_path)
    assert "BilevelModel(SCIP.Optimizer, mode = BilevelJuMP.SOS1Mode())" in shown


@pytest.mark.parametrize("to", ["bileveljump", "gams-emp"])
def test_followers_that_are_not_convex_take_force(to, tmp_path):
    path = tmp_path / "m.txt"
    with pytest.raises(bl.ExportError, match="BLV0702"):
        bl.export(bl.parse(problems.CONCAVE), to=to, path=path)
    with pytest.raises(bl.ExportError, match=r"BLV070[13]"):
        bl.export(bl.parse(problems.INTEGER), to=to, path=path)
    assert not path.exists()
    with pytest.warns(UserWarning, match="not known to be convex"):
        bl.export(bl.parse(problems.CONCAVE), to=to, path=path, options={"force": True})
    assert "WARNING: f is not known to be convex" in path.read_text()
