"""JSON and LaTeX hold every model as it is."""

import json
from pathlib import Path

import numpy as np
import problems
import pytest

import bilevelpy as bl
from bilevelpy.exporters.latex.model import latex
from bilevelpy.ir.restore import decode
from bilevelpy.ir.serial import digest, document

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.blv"))
TEXTS = [text for text, *_ in problems.KNOWN.values()]
TEXTS += [problems.INTEGER, problems.PESSIMISTIC, problems.FAMILY, problems.BALL, problems.EXP]


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_json_of_the_catalogue_is_read_back_equal(path, tmp_path):
    model = bl.load(path)
    files = bl.export(model, to="json", path=tmp_path / "m.json")
    again = bl.read(tmp_path / "m.json")
    assert digest(again.bound) == digest(model.bound)
    assert again.text == model.text
    assert files[-1] == tmp_path / "m.json"


@pytest.mark.parametrize("text", TEXTS, ids=lambda t: t.split()[1])
def test_json_of_small_models_is_read_back_equal(text, tmp_path):
    model = bl.parse(text)
    bl.export(model, to="json", path=tmp_path / "m.json")
    again = bl.read(tmp_path / "m.json")
    assert digest(again.bound) == digest(model.bound)
    bl.export(again, to="json", path=tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "m.json").read_text()


def test_the_digest_sees_meaning_and_not_layout():
    first = digest(bl.parse(problems.P1).bound)
    assert digest(bl.parse("# note\n" + problems.P1.replace("  ", " ")).bound) == first
    assert digest(bl.parse(problems.P1.replace("<= 12", "<= 13")).bound) != first


def test_json_keeps_sparse_and_large_data(tmp_path):
    from scipy.sparse import random_array

    text = """
    model data; dim n, m; param A[n, m], b[n], e in [0, inf] = inf;
    upper { var x in [0, 1]; minimize x; }
    lower f { var w[m]; minimize sumsq(A @ w - b) + sumsq(w); }
    """
    rng = np.random.default_rng(0)
    a = random_array((300, 200), density=0.02, rng=rng, format="csr")
    sparse = bl.parse(text, data={"A": a, "b": np.arange(300.0)})
    dense = bl.parse(text, data={"A": rng.random((400, 200)), "b": rng.random(400)})
    for model in (sparse, dense):
        bl.export(model, to="json", path=tmp_path / "m.json")
        assert digest(bl.read(tmp_path / "m.json").bound) == digest(model.bound)
    assert (tmp_path / "m.npz").exists()


def test_damaged_json_is_refused(tmp_path):
    path = tmp_path / "m.json"
    bl.export(bl.parse(problems.P1), to="json", path=path)
    text = path.read_text()
    for broken, message in [
        (text[:200], "not JSON"),
        (text.replace('"version": 1', '"version": 9'), "version 9"),
        (text.replace('"value": 12.0', '"value": 11.0'), "damaged"),
        (text.replace('"node": "Apply"', '"node": "Appli"', 1), "damaged"),
        ("[]", "neither"),
    ]:
        path.write_text(broken)
        with pytest.raises(bl.UsageError, match=message):
            bl.read(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("data", "sizes", 0, 1), 1e400),
        (("data", "arrays", "a", "shape", 0), 1e400),
        (("program", "sources", "<text>"), {}),
    ],
)
def test_numbers_and_texts_that_cannot_be(place, value):
    """Infinity passes through JSON; no whole number is made of it."""
    model = bl.parse("param a[2] = [1, 2]; upper { var x; minimize x^2; } "
                     "lower l { var y[2]; minimize sum((y - a * x)^2); }")  # fmt: skip
    content = document(model.bound)
    *path, last = place
    part = content
    for key in path:
        part = part[key]
    part[last] = value
    with pytest.raises(bl.UsageError, match="damaged"):
        decode(content, {}, {})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("operands", [2, 300], "there is no object 300 before it"),
        ("operands", ["a"], "a place among the objects is a whole number"),
        ("node", "Foo", "there is no node of the kind 'Foo'"),
        ("operands", None, "a value is not of the kind that belongs there"),
    ],
)
def test_damage_is_told_without_words_of_python(key, value, message):
    content = document(bl.parse(problems.P1).bound)
    place = next(k for k, e in enumerate(content["objects"]) if e.get("operands"))
    content["objects"][place][key] = value
    with pytest.raises(bl.UsageError, match="damaged") as caught:
        decode(content, {}, {})
    assert f"damaged: object {place}: {message}" in str(caught.value)
    del content["objects"]
    with pytest.raises(bl.UsageError, match="damaged: an entry has no `objects`"):
        decode(content, {}, {})


def test_json_has_no_nan(tmp_path):
    bl.export(bl.parse(problems.P1), to="json", path=tmp_path / "m.json")

    def refuse(value):
        raise AssertionError(value)

    json.loads((tmp_path / "m.json").read_text(), parse_constant=refuse)


def test_latex_in_index_notation():
    shown = latex(bl.load(MODELS[0].with_name("ridge_small.blv")).program)
    assert (
        r"\min_{\alpha, w} \; & \sum_{i \in m} \left(\sum_{j \in p} V_{i, j} \, w_{j} - v_{i}"
        in shown
    )
    assert r"\left(w\right) \in \operatorname{argmin}" in shown
    assert r"0 \le \alpha \le 100" in shown


@pytest.mark.parametrize("text", TEXTS, ids=lambda t: t.split()[1])
def test_latex_is_balanced(text):
    shown = latex(bl.parse(text).program)
    assert shown.count("{") == shown.count("}")
    assert shown.count(r"\left") == shown.count(r"\right")
    assert "np." not in shown
    assert "None" not in shown


def test_latex_shows_stance_families_and_duals():
    assert r"\max_{y} \;" in latex(bl.parse(problems.PESSIMISTIC).program)
    assert r"\text{(Nash)}" in latex(bl.parse(problems.NASH).program)
    assert r"\pi^{\mathrm{market.balance}}" in latex(bl.parse(problems.BIDDING).program)
    assert r"\forall i \in \mathrm{AREA}" in latex(bl.parse(problems.FAMILY).program)
