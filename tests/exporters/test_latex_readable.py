"""Formulas as a paper has them: pairs in their parts, conditions below sums, broken lines."""

from __future__ import annotations

import pytest

import bilevelpy as bl
from bilevelpy.exporters.latex.layout import LINE, broken, width
from bilevelpy.exporters.latex.model import latex

MODEL = """\
model m;
set I = 1..5;
set J = 1..4;
set K = {"a", "b"};
set ARC within K * K = {("a", "b"), ("b", "a")};
param c[I] = 1, d[I, J] = 1, z[K] = 0;
upper { var x in [0, 1]; minimize sum(y) - 7 * x; }
lower l {
  var y[I], f[ARC];
  minimize OBJECTIVE;
  subject to
    ROW;
}
"""
SHOWN = {
    "sum(y[i] for i in I where c[i] > 0)": r"\sum_{i \in I : c_{i} > 0} y_{i}",
    # The letter of a row stands for the part that a condition fixes.
    "r[i in I]: sum(d[i, j] * y[i] for j in J where j < i) <= 1":
        r"\sum_{j \in J : j < i} d_{i, j} \, y_{i} \le 1 \quad \forall i \in I",
    "r[n in K]: sum(f[i, j] for (i, j) in ARC where j == n) == z[n]":
        r"\sum_{(j, k) \in \mathrm{ARC} : k = i} f_{j, k} = z_{i} \quad \forall i \in K",
    'r[(i, j) in ARC where i != "b"]: f[i, j] <= z[j]':
        r"f_{i, j} \le z_{j} \quad \forall (i, j) \in \mathrm{ARC} : i \ne \text{b}",
    "r[i in I where c[i] >= 2 or i == 3]: y[i] <= 1":
        r"y_{i} \le 1 \quad \forall i \in I : c_{i} \ge 2 \vee i = 3",
    "sum(d[i, j] * y[i] for i in I, j in J where i != j and c[i] <= d[i, j])":
        r"\sum_{\substack{i \in I, j \in J \\ i \ne j, c_{i} \le d_{i, j}}} d_{i, j} \, y_{i}",
    "mean(y[i]^2 for i in I where i > 2)":
        r"\frac{1}{\lvert \{i \in I : i > 2\} \rvert} \, \sum_{i \in I : i > 2} y_{i}^{2}",
    # Within pairs every sum over them has pairs, also where only the whole is read.
    "sumsq(f) + sum(z[i] * f[i, j] for (i, j) in ARC)":
        r"\sum_{(i, j) \in \mathrm{ARC}} f_{i, j}^{2} + "
        r"\sum_{(i, j) \in \mathrm{ARC}} z_{i} \, f_{i, j}",
    # The order of the text, signs behind.
    "-3 * sum(y) + sumsq(y) + x": r"\sum_{i \in I} y_{i}^{2} + x - 3 \, \sum_{i \in I} y_{i}",
    "sum(y[i]^2 for i in 2..4)": r"\sum_{i \in \{2, \dots, 4\}} y_{i}^{2}",
}  # fmt: skip


@pytest.mark.parametrize("text", SHOWN)
def test_sets_and_conditions(text: str) -> None:
    row = text.startswith("r[")
    model = MODEL.replace("OBJECTIVE", "sumsq(y) + sumsq(f)" if row else text)
    shown = latex(bl.parse(model.replace("ROW", text if row else "r: sum(y) <= 9")).program)
    assert SHOWN[text] in shown


def test_a_symbol_with_a_superscript_is_raised_in_parentheses() -> None:
    """TeX refuses a second superscript."""
    text = latex(
        bl.parse("""
        param big = 1e20;
        upper { var x in [0, 1]; minimize dual(a.cap)^2 + big + 1e20^x; }
        lower a { var q; minimize q^2 + q^1.5 - x * q; subject to cap: q <= 1; }
        lower b { var q[2]; minimize sumsq(q); }
        """).program
    )
    assert r"\left(q^{a}\right)^{2} + \left(q^{a}\right)^{1.5}" in text
    assert r"\left(\pi^{\mathrm{a.cap}}\right)^{2}" in text
    assert r"\left(10^{20}\right)^{x}" in text
    assert r"\left(q^{b}_{i}\right)^{2}" in text


def test_labels_are_text_whatever_they_hold() -> None:
    """Signs of mathematics are errors in text."""
    text = latex(
        bl.parse(
            'set S = {"x^2", "a~b", "c\\d"}; upper { var x; minimize x^2 + y["x^2"]; }'
            'lower l { var y[S]; minimize sumsq(y) - y["a~b"] * x - y["c\\d"]; }'
        ).program
    )
    assert r"y_{\text{x\textasciicircum{}2}}" in text
    assert r"y_{\text{a\textasciitilde{}b}}" in text
    assert r"y_{\text{c\textbackslash{}d}}" in text


def test_a_long_sum_breaks_between_its_terms() -> None:
    parts = [r"\frac{1}{\lvert n \rvert} \, \sum_{i \in n} \left(a_{i} - b_{i}\right)^{2}"] * 8
    lines = broken(parts, " = 0")
    assert len(lines) > 1
    assert all(width(line) <= LINE for line in lines)
    assert all(line.startswith("+ ") for line in lines[1:])
    assert lines[-1].endswith(" = 0")
    assert broken(["a", "-b"]) == ["a - b"]


def test_the_elements_of_a_family_are_said_where_there_is_room() -> None:
    text = """\
model m; set TASK = 1..3; dim n = 2; param c[TASK, n] = 1;
upper { var x in [0, 1]; minimize x + sum(t.y); }
lower t[i in TASK] { var y[n]; minimize OBJECTIVE; }
"""
    short = latex(bl.parse(text.replace("OBJECTIVE", "sumsq(y)")).program).splitlines()
    assert short[-2].endswith(r"y_{i, j}^{2} \qquad \forall i \in \mathrm{TASK}")
    terms = " + ".join(f"c[i, j] * exp({k} * y[j])" for k in range(2, 6))
    wide = f"sum(({terms})^2 for j in n)"
    long = latex(bl.parse(text.replace("OBJECTIVE", wide)).program).splitlines()
    assert long[-2] == r"  & \quad \qquad \forall i \in \mathrm{TASK}"


def test_what_is_still_too_wide_breaks_inside_its_brackets() -> None:
    terms = [rf"\log(1 + e^{{-\left(\sum_{{j \in p}} {c}_{{i, j}} \, w_{{j}} + b\right)}})"
             for c in ("alpha", "beta", "gamma")]  # fmt: skip
    inside = f"- {terms[0]} - {terms[1]} + {terms[2]}"
    part = rf"\mathrm{{price}} \, \left({inside}\right)^{{2}}"
    lines = broken(["x", part, "y"])
    assert lines == [
        "x",
        rf"+ \mathrm{{price}} \, \Bigl( - {terms[0]} - {terms[1]}",
        rf"\quad + {terms[2]}\Bigr)^{{2}}",
        "+ y",
    ]
    # Nothing to break at: brackets in an index, or around one term.
    whole = rf"a_{{\left(b + c\right)}} \, \left({'d' * 80}\right)"
    assert broken([whole]) == [whole]


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (r"\frac{a}{b}", "a + b"),
        (r"\sum_{i \in I} x", r"\mathrm{sum of all} x"),
        (r"\sum_{\substack{i \in I \\ c_{i} > 0}} x", r"\sum_{i \in I, c_{i} > 0} x"),
        (r"\mathrm{ab}", r"\mathrm{abc}"),
    ],
)
def test_widths_compare_as_on_paper(narrow: str, wide: str) -> None:
    assert width(narrow) < width(wide)


@pytest.mark.parametrize("each", ["a{j} + exp(a{j})", "sin(a{j})"])
def test_what_is_long_only_without_its_names_is_refused(each: str, tmp_path) -> None:
    lets = "".join(f"let a{k} = {each.replace('{j}', str(k - 1))}; " for k in range(1, 300))
    model = bl.parse(f"upper {{ var x; minimize x; }} lower f {{ var y; let a0 = y; {lets}"
                     "minimize (a299 - x)^2; }")  # fmt: skip
    with pytest.raises(bl.ExportError, match="LaTeX cannot hold"):
        bl.export(model, to="latex", path=tmp_path / "m.tex")
    assert model._repr_latex_() is None
    assert model._repr_html_() is None
