"""Trees of all forms of the language."""

from __future__ import annotations

import pytest

from bilevelpy.syntax import ast
from tests.unit.syntax.samples import FIRMS, FORMS, RIDGE, SAMPLES, expression, plain, read, tree


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_parse(name):
    assert read(SAMPLES[name]).diagnostics == []


def show(node):
    """An expression with all its parentheses."""
    match node:
        case ast.Number(text=text):
            return text
        case ast.Name(name=name):
            return name
        case (
            ast.Sum(terms=parts, operators=operators)
            | ast.Product(factors=parts, operators=operators)
        ):
            rest = "".join(f" {o} {show(p)}" for o, p in zip(operators, parts[1:], strict=True))
            return f"({show(parts[0])}{rest})"
        case ast.Negate(sign=sign, operand=operand):
            return f"({sign}{show(operand)})"
        case ast.Power(base=base, exponent=exponent):
            return f"({show(base)} ^ {show(exponent)})"
        case ast.Transpose(operand=operand):
            return f"{show(operand)}'"
        case ast.Index(base=base, subscripts=subscripts):
            return f"{show(base)}[{', '.join(':' if s is None else show(s) for s in subscripts)}]"
        case ast.Member(base=base, name=name):
            return f"{show(base)}.{name}"
        case ast.Call(function=function, arguments=arguments):
            return f"{function}({', '.join(map(show, arguments))})"
        case ast.IfElse(condition=c, then=a, otherwise=b):
            return f"(if {show(c)} then {show(a)} else {show(b)})"
        case ast.Compare(operands=operands, operators=operators):
            rest = "".join(f" {o} {show(p)}" for o, p in zip(operators, operands[1:], strict=True))
            return f"{show(operands[0])}{rest}"
        case ast.Boolean(operator=operator, operands=operands):
            return f"({f' {operator} '.join(map(show, operands))})"
        case ast.Not(operand=operand):
            return f"(not {show(operand)})"
        case ast.Array(elements=elements):
            return f"[{', '.join(map(show, elements))}]"
    raise AssertionError(node)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a - b + c", "(a - b + c)"),
        ("a - (b + c)", "(a - (b + c))"),
        ("a / b * c @ d", "(a / b * c @ d)"),
        ("a + b * c", "(a + (b * c))"),
        ("-a^2", "(-(a ^ 2))"),
        ("a^-b^c", "(a ^ (-(b ^ c)))"),
        ("a^b^c", "(a ^ (b ^ c))"),
        ("(a^b)^c", "((a ^ b) ^ c)"),
        ("-a * -b", "((-a) * (-b))"),
        ("+-a", "(+(-a))"),
        ("a'^2", "(a' ^ 2)"),
        ("A' @ b[1, :]'", "(A' @ b[1, :]')"),
        ("f.x[i]'", "f.x[i]'"),
        ("(a)[1]", "a[1]"),
        ("f(a, b)[c]", "f(a, b)[c]"),
        ("[[1, 2], [3, 4]]", "[[1, 2], [3, 4]]"),
        ("if a < b then c else d + e", "(if a < b then c else (d + e))"),
        (
            "if a < 1 then b else if c == 2 then d else e",
            "(if a < 1 then b else (if c == 2 then d else e))",
        ),
        (
            "if not a < b and c < d <= e or f != g then 1 else 0",
            "(if (((not a < b) and c < d <= e) or f != g) then 1 else 0)",
        ),
        (
            "if not (a < b or (c < d)) and ((e > f)) then 1 else 0",
            "(if ((not (a < b or c < d)) and e > f) then 1 else 0)",
        ),
        ("(if a < b then c else d) * 2", "((if a < b then c else d) * 2)"),
        ("1.5e-3 + .5 + 2. + inf", "(1.5e-3 + .5 + 2. + inf)"),
    ],
)
def test_precedence(text, expected):
    assert show(expression(text)) == expected


def test_spans_leave_parentheses_out_and_cover_the_text():
    text = "report r = (a + b) * f(c)[1];"
    value = tree(text).items[0].value
    assert text[value.span.start : value.span.end] == "(a + b) * f(c)[1]"
    left, right = value.factors
    assert text[left.span.start : left.span.end] == "a + b"
    assert text[right.span.start : right.span.end] == "f(c)[1]"
    assert [text[s.start : s.end] for s in value.operator_spans] == ["*"]


def test_comprehension_with_pairs_and_filter():
    value = expression("sum(x[i] for (i, j) in ARC, t in 1..T where i != j)")
    assert isinstance(value, ast.Comprehension)
    assert value.function == "sum"
    pair, range_ = value.generators.binders
    assert pair.names == ("i", "j")
    assert isinstance(range_.set, ast.Range)
    assert isinstance(value.generators.condition, ast.Compare)


def test_call_with_keyword():
    value = expression("huber(r, d = 1)")
    assert [k.name for k in value.keywords] == ["d"]
    assert len(value.arguments) == 1
    assert expression("f()").arguments == ()


def test_sets():
    node, arc, sub, low, year, size = (s for d in tree(FORMS).items[:6] for s in d.items)
    assert node.value.elements == ("a", "b", "c")
    assert plain(arc.within) == ("CrossProduct", (("Name", "NODE"), ("Name", "NODE")))
    assert arc.value.elements == (("a", "b"), ("b", "c"))
    assert sub.within.name == "NODE"
    assert sub.value.operators == ("diff", "union", "inter")
    assert isinstance(low.value.low, ast.Negate)
    assert year.value.elements == (2020, -1, 1.5)
    assert [type(e) for e in year.value.elements] == [int, int, float]
    assert isinstance(size.value, ast.Range)
    (empty,) = tree("set E = {};").items[0].items
    assert empty.value.elements == ()


def test_tables():
    cost, length = tree(FORMS).items[7].items
    assert cost.default.keys == ("a", "b", "c")
    assert cost.default.values == (1.0, -2.5, float("inf"))
    assert length.default.keys == (("a", "b"), ("b", "c"))


def test_declarations():
    items = {type(i).__name__: i for i in tree(FIRMS).items}
    assert items["Include"].path == "common.blv"
    assert items["ModelHeader"].title == "One leader, a family of followers"
    assert [s.value for s in items["SetDecl"].items] == [None]
    c, d, a = items["ParamDecl"].items
    assert isinstance(c.domain, ast.Interval)
    assert isinstance(d.domain, ast.Property)
    assert len(d.axes) == 2
    assert isinstance(a.default, ast.Power)
    extern = items["ExternDecl"]
    assert [len(x.axes) for x in extern.arguments] == [1, 2]
    assert extern.result == ()
    assert [p.name for p in extern.properties] == ["smooth", "convex"]
    assert len(tree("extern h(x) -> [2, n];").items[0].result) == 2


def test_levels():
    items = tree(FORMS).items
    upper = next(i for i in items if isinstance(i, ast.Upper))
    lower = next(i for i in items if isinstance(i, ast.Lower))
    assert upper.stance is None
    assert lower.nash
    assert lower.generators is not None
    assert FORMS[lower.head_span.start : lower.head_span.end].endswith("nash")
    assert FORMS[lower.span.start : lower.span.end].endswith("}")
    variables, objective, subject = upper.statements
    assert [v.name for v in variables.items] == ["x", "y"]
    assert isinstance(variables.items[1].start, ast.Negate)
    assert objective.sense == "minimize"
    family, chain = subject.constraints
    assert family.generators.binders[0].names == ("i", "j")
    assert chain.operators == (">=", ">=")
    dual, smooth, convex = lower.statements[-1].facts
    assert isinstance(dual, ast.AssumeDual)
    assert dual.constraint.name == "r"
    assert (smooth.name, convex.arguments) == ("smooth", ())
    firms = tree(FIRMS).items
    assert next(i for i in firms if isinstance(i, ast.Upper)).stance == "pessimistic"


def test_expect():
    first, second = tree(FORMS).items[-2:]
    assert (first.expected, first.tolerance) == (-6.1333, 1e-4)
    assert plain(first.value) == ("Member", ("Name", "upper"), "objective")
    assert plain(second.value) == ("Member", ("Name", "one"), "objective")


def test_comparisons_that_make_no_constraint_are_left_to_later_checks():
    upper = tree("upper { subject to a: x < 1; b: x > 1; c: x != 1; }").items[0]
    assert [c.operators for c in upper.statements[0].constraints] == [("<",), (">",), ("!=",)]


def test_documentation_comments():
    text = """\
## First line.
## Second line.
dim n, m;   ## not documentation
# a plain comment ends it
param a,
  ## The b.
  b;
## The level.
lower f {
  ## Weights.
  var w;
  subject to
    ## The row.
    c: w <= 1;
}
"""
    dims, params, lower = tree(text).items
    assert [d.doc for d in dims.items] == ["First line.\nSecond line."] * 2
    assert [p.doc for p in params.items] == [None, "The b."]
    assert lower.doc == "The level."
    assert lower.statements[0].items[0].doc == "Weights."
    assert lower.statements[1].constraints[0].doc == "The row."


def test_comments_are_kept():
    comments = read(RIDGE).comments
    assert [c.own_line for c in comments] == [True, False, False]
    assert comments[1].text == "# sizes: inferred from the bound arrays"


def test_byte_order_mark_and_line_ends():
    text = RIDGE.replace("subject to", "subject\r\n  to")
    assert plain(tree("\ufeff" + text.replace("\n", "\r\n"))) == plain(tree(RIDGE))


def test_keywords_are_whole_words():
    assert tree("dim index, formula, inform, subject_to_x;").items[0].items[0].name == "index"


def test_reserved_words_cannot_be_names():
    for word in ("set", "in", "start", "for", "inf", "nash", "within"):
        assert read(f"dim {word};").diagnostics, word


def test_flat_sum_of_many_terms_has_depth_one():
    value = expression(" + ".join(f"x{i}" for i in range(10_000)))
    assert len(value.terms) == 10_000
