"""The formatter: same tree, same comments, stable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bilevelpy.syntax.format import WIDTH, format_source
from tests.unit.syntax.samples import SAMPLES, plain, read, tree

MODELS = sorted((Path(__file__).parents[3] / "models").glob("**/*.blv"))
TEXTS = {**SAMPLES, **{path.name: path.read_text(encoding="utf-8") for path in MODELS}}


def formatted(text):
    result = format_source(text)
    assert result.text is not None, result.diagnostics
    return result.text


def check(text):
    once = formatted(text)
    assert formatted(once) == once
    assert plain(tree(once)) == plain(tree(text))
    comments = [Counter(c.text for c in read(t).comments) for t in (text, once)]
    assert comments[0] == comments[1]
    return once


@pytest.mark.parametrize("name", TEXTS)
def test_properties(name):
    check(TEXTS[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_layout_does_not_depend_on_white_space(name):
    text = SAMPLES[name]
    if "#" not in text:
        squeezed = " ".join(text.split())
        expected = "\n".join(line for line in formatted(text).split("\n") if line) + "\n"
        assert formatted(squeezed) == expected


def test_golden():
    text = """\
dim n,   # samples
    ## the features
    p;


# own
upper{var x[n] in[-inf,inf] start-1; # trailing
 minimize -(x)+sum(x[i]*y[i]^-2 for i in I where i>3 and not(i<5))/2;

 subject
   to # st
   # about c
   c[(i,j) in A]:-x[:,i]'<=3;
   # end
}
lower f nash{minimize x;}
set A = 1. ..3; param t={"a":-1,("a","b"):2};
extern net(a[k])->[]:smooth,convex(a);
"""
    assert (
        check(text)
        == """\
dim n,  # samples
    ## the features
    p;

# own
upper {
  var x[n] in [-inf, inf] start -1;  # trailing
  minimize -(x) + sum(x[i] * y[i]^-2 for i in I where i > 3 and not (i < 5)) / 2;

  subject to  # st
    # about c
    c[(i, j) in A]: -x[:, i]' <= 3;
  # end
}
lower f nash {
  minimize x;
}
set A = 1. ..3;
param t = {"a": -1, ("a", "b"): 2};
extern net(a[k]) -> [] : smooth, convex(a);
"""
    )


def test_long_statements_break_where_operators_bind_least():
    text = "report r = " + " + ".join(f"alpha{i} * f(beta{i}, gamma{i})" for i in range(8)) + ";"
    assert (
        check(text)
        == """\
report r = alpha0 * f(beta0, gamma0) + alpha1 * f(beta1, gamma1) + alpha2 * f(beta2, gamma2)
    + alpha3 * f(beta3, gamma3) + alpha4 * f(beta4, gamma4) + alpha5 * f(beta5, gamma5)
    + alpha6 * f(beta6, gamma6) + alpha7 * f(beta7, gamma7);
"""
    )


def test_lines_are_short():
    text = "report r = " + "f(" * 10 + " - ".join(["alpha * (b + c)"] * 60) + ")" * 10 + ";"
    assert max(map(len, check(text).split("\n"))) <= WIDTH


def test_blank_lines_are_kept_up_to_one():
    assert check("\n\ndim a;\ndim b;\n\n\n\ndim c;\n\n") == "dim a;\ndim b;\n\ndim c;\n"
    assert check("upper {\n\n  minimize x;\n\n}\n") == "upper {\n  minimize x;\n}\n"


def test_files_with_errors_are_left_alone():
    result = format_source("dim n")
    assert result.text is None
    assert [d.code for d in result.diagnostics] == ["BLV0101"]


def test_empty_files():
    assert formatted("") == ""
    assert check("  # only a comment") == "# only a comment\n"
