"""Data that does not fit: which errors, where, in which words."""

import numpy as np
import pandas as pd
import pytest


def only(problems):
    (problem,) = problems
    return problem


def text_at(text, label):
    return text[label.span.start : label.span.end]


def test_a_size_conflict_points_at_both_places(problems):
    text = "dim n, p, m;\nparam X[n, p];\nparam Xv[m, p];"
    problem = only(problems(text, {"X": np.ones((5, 3)), "Xv": np.ones((4, 2))}))
    assert problem.message == "`Xv` has 2 columns but axis `p` is 3 long"
    assert text_at(text, problem.primary).startswith("Xv")
    assert problem.primary.text == "bound to an array (4, 2) from the argument Xv"
    assert problem.secondary[0].text == "`p` was set to 3 by an array (5, 3) from the argument X"
    assert text_at(text, problem.secondary[0]).startswith("X")


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (
            "dim n; param a[n], b[n];",
            {"a": [1, 2], "b": [1]},
            "`b` has 1 entry but axis `n` is 2 long",
        ),
        ("dim k = 3; param a[k];", {"a": [1]}, "`a` has 1 entry but axis `k` is 3 long"),
        ("dim k; param D[k, k];", {"D": [[1, 2]]}, "`D` has 2 columns but axis `k` is 1 long"),
        ('set S = {"a"}; param c[S];', {"c": [1, 2]}, "`c` has 2 entries but axis `S` is 1 long"),
        (
            "dim n, m; param a[n], T[m, m, n];",
            {"a": [1], "T": np.ones((2, 2, 2))},
            "`T` has 2 entries along axis 3 but axis `n` is 1 long",
        ),
    ],
)
def test_size_conflicts(problems, text, data, message):
    assert only(problems(text, data)).message == message


def test_all_missing_params_at_once(problems):
    text = "dim n; param X[n, n], y[n], cap, d = 1;"
    problem = only(problems(text, None))
    assert problem.message == "no data for `X`, `y` and `cap`"
    assert problem.primary.text == "expects an array (n, n)"
    assert [s.text for s in problem.secondary] == ["expects an array (n)", "expects a number"]


def test_unknown_names_are_compared_with_known_ones(problems):
    found = problems("dim n; param cost[n];", {"cots": [1]})
    assert sorted(p.code for p in found) == ["BLV0401", "BLV0404"]
    unknown = next(p for p in found if p.code == "BLV0404")
    assert unknown.hint == "did you mean `cost`?"
    unknown = only(problems("param a = 1;", externs={"net": len}))
    assert unknown.code == "BLV0404"


def test_a_file_with_a_similar_name_is_a_hint(problems, tmp_path):
    np.savez(tmp_path / "d.npz", Cost=[1.0])
    problem = only(problems("dim n; param cost[n];", tmp_path / "d.npz"))
    assert problem.notes == ("the data holds `Cost`: did you mean it for `cost`?",)


@pytest.mark.parametrize(
    ("domain", "data", "message", "note"),
    [
        (
            "[0, 1]",
            [0, 1, np.nan],
            "1 of 3 values of `v` is not a number",
            "v[3] = nan",
        ),
        ("[0, inf]", [np.inf, -np.inf], "1 of 2 values of `v` lie outside [0, inf]", "v[2] = -inf"),
        ("binary", [0, 1, 0.5], "1 of 3 values of `v` lie outside {0, 1}", "v[3] = 0.5"),
        (
            "integers(0, 5)",
            [0, 6, 1.5, -1, 9],
            "4 of 5 values of `v` lie outside integers(0, 5)",
            "first: v[2] = 6, v[3] = 1.5, v[4] = -1",
        ),
        ("simplex", [0.5, 0.6], "`v` is not in the simplex", "v sums to 1.1, not to 1"),
        ("simplex", [1.5, -0.5], "`v` is not in the simplex", "it has v[2] = -0.5"),
        ("ball(1)", [1, 1], "`v` is not in the ball of radius 1", "its norm is 1.41421"),
    ],
)
def test_domains(problems, domain, data, message, note):
    text = f"dim n; param v[n] in {domain};"
    problem = only(problems(text, {"v": np.array(data)}))
    assert problem.message == message
    assert problem.notes == (note,)


def test_matrix_domains(problems):
    text = "dim k; param D[k, k] in psd;"
    problem = only(problems(text, {"D": [[1, 2], [0, 1]]}))
    assert problem.message == "`D` is not symmetric"
    assert problem.notes == ("D[1, 2] = 2, D[2, 1] = 0",)
    problem = only(problems(text, {"D": [[1, 2], [2, 1]]}))
    assert problem.notes == ("its smallest eigenvalue is -1",)
    problem = only(problems("dim m, k; param W[m, k] in simplex;", {"W": [[1, 0], [0.5, 0]]}))
    assert problem.notes == ("W[2] sums to 0.5, not to 1",)


def test_bounds_may_be_data(problems):
    text = 'set S = {"a", "b"}; param hi[S], v[S] in [0, hi];'
    problem = only(problems(text, {"hi": [1, 2], "v": [2, 2]}))
    assert problem.notes == ('v["a"] = 2',)


def test_nan_and_infinity_without_a_domain(problems, bound):
    problem = only(problems("dim n; param v[n];", {"v": [1, np.nan]}))
    assert problem.message == "1 of 2 values of `v` is not a number"
    problem = only(problems("dim n; param v[n];", {"v": [np.inf, np.inf]}))
    assert problem.message == "2 of 2 values of `v` are infinite"
    assert "in [-inf, inf]" in problem.hint
    everything = "dim n; param v[n] in [-inf, inf];"
    bound(everything, {"v": [-np.inf, 3.0]})
    problem = only(problems(everything, {"v": [np.nan, 3.0]}))
    assert problem.message == "1 of 2 values of `v` is not a number"


def test_labelled_data_that_does_not_fit(problems):
    text = 'set S = {"north", "south"}; set T = 1..2; param c[S], D[S, T];'
    good = np.ones((2, 2))
    problem = only(problems(text, {"c": {"north": 1}, "D": good}))
    assert problem.message == "`c` has no value for 1 of the 2 elements of `S`"
    assert problem.primary.text == 'no value for "south"'
    problem = only(problems(text, {"c": {"north": 1, "soth": 1}, "D": good}))
    assert problem.hint == 'did you mean "south"?'
    problem = only(problems(text, {"c": [1, 2], "D": {("north", 1): 1, ("south", 2): 1}}))
    assert problem.primary.text == 'no value for ("north", 2), ("south", 1)'
    problem = only(problems(text, {"c": [1, 2], "D": {"north": 1}}))
    assert problem.code == "BLV0403"
    problem = only(
        problems(text, {"c": pd.Series([1, 2, 3], index=["north", "south", "south"]), "D": good})
    )
    assert problem.code == "BLV0423"


def test_wrong_ranks(problems):
    problem = only(problems("dim n; param v[n];", {"v": np.ones((3, 1))}))
    assert problem.message == "`v` is declared as (n) but its data is (3, 1)"
    assert "v.ravel()" in problem.hint
    problem = only(problems("param a;", {"a": [1, 2]}))
    assert problem.message == "`a` is declared as a scalar but its data is (2)"


@pytest.mark.parametrize("size", [0, -1, 2.5, float("nan"), float("inf"), "3", [1, "a"]])
def test_sizes_that_are_none(problems, size):
    assert only(problems("dim n; param a[n] = 1;", {"n": size})).code in ("BLV0416", "BLV0419")


def test_sizes_from_data(problems, bound):
    problem = only(problems("dim n; param a[n];", {"a": []}))
    assert problem.code == "BLV0416"
    problem = only(problems("param k; dim n = k / 2; param a[n] = 1;", {"k": 3}))
    assert problem.code == "BLV0416"
    assert len(bound("param k; dim n = k / 2; param a[n] = 1;", {"k": 4}).arrays["a"]) == 2


def test_what_the_model_states_is_fixed(problems, bound):
    bound('dim k = 3; set S = {"a", "b"}; param v[k] = 1, w[S] = 1;', {"k": 3, "S": ["a", "b"]})
    assert only(problems("dim k = 3; param v[k] = 1;", {"k": 4})).code == "BLV0418"
    assert only(problems('set S = {"a", "b"}; param v[S] = 1;', {"S": ["c"]})).code == "BLV0418"
    assert only(problems("set T = 1..3; param v[T] = 1;", {"T": [1, 2, 4]})).code == "BLV0418"


def test_sets_bound_to_what_is_no_set(problems):
    text = "set S; param v[S] = 1;"
    for value in (3, "abc", {"a": 1}, {"a", "b"}, ["a", "a"], [None], [1.5, float("nan")]):
        assert only(problems(text, {"S": value})).code == "BLV0419"
    assert (
        only(problems("set N; set A within N * N; param v[A] = 1;", {"N": ["a"], "A": ["a"]})).code
        == "BLV0419"
    )
    assert (
        only(
            problems("set N; set A within N * N; param v[A] = 1;", {"N": ["a"], "A": [("a", "b")]})
        ).code
        == "BLV0410"
    )


def test_unknown_elements_and_sizes(problems):
    assert (
        only(problems("set S; param v[S];", {"v": [1, 2]})).message
        == "nothing tells the elements of `S`"
    )
    assert only(problems("dim n; param v[n];", {"v": 1})).message == "nothing tells the size of `n`"


def test_an_unused_size_is_no_concern(bound):
    bound("dim n; set S; param a = 1;")


def test_externs(problems, program):
    text = "extern net(t[2]) -> [] : smooth; upper { var t[2] in [0, 1]; minimize net(t); }"
    assert only(problems(text)).message == "extern `net` needs a function, found none"
    assert only(problems(text, externs={"net": 3})).code == "BLV0421"


def test_independent_errors_come_together_in_the_order_of_the_text(problems):
    text = "dim n;\nset S;\nparam a[n], b[S], c in [0, 1], d;"
    found = problems(text, {"a": "x", "b": [1, 2], "c": 3})
    assert [p.code for p in found] == ["BLV0408", "BLV0407", "BLV0405", "BLV0401"]


def test_bounds_and_starts_of_variables(problems, bound):
    text = (
        'set S = {"a", "b"}; param lo[S], hi[S], s[S]; '
        "upper { var x[S] in [lo, hi] start s; minimize sum(x^2); }"
    )
    bound(text, {"lo": [0, 0], "hi": [0, 1], "s": [0, 1]})
    problem = only(problems(text, {"lo": [0, 2], "hi": [1, 1], "s": [0, 1]}))
    assert problem.message == "the bounds of `x` cross: 2 is not below 1"
    assert problem.primary.text == 'at x["b"]'
    problem = only(problems(text, {"lo": [0, 0], "hi": [1, 1], "s": [0, 3]}))
    assert problem.message == "the start of `x` lies outside of [lo, hi]"
    assert problem.primary.text == 'x["b"] starts at 3'


def test_what_depends_on_missing_data_stays_silent(problems):
    text = "param hi, r; dim n; param v[n] in [0, hi], w[n] in ball(r), z[n] = v / hi;"
    problem = only(problems(text, {"v": [1], "w": [1]}))
    assert problem.message == "no data for `hi` and `r`"


@pytest.mark.parametrize(
    ("g", "hint"),
    [
        ([0, 1, 2], "elements count from 1: where `g` counts from 0, bind `g + 1`"),
        ([1, 2, 4], "leave that element out with a `where`"),
        ([1, 2, 2.5], "elements have whole numbers: round `g`"),
    ],
)
def test_numbers_of_elements_that_are_data_count_from_1(problems, g, hint):
    text = "dim n; param a[3] = [1, 2, 3], g[n], total = sum(a[g[i]] for i in n);"
    assert {p.hint for p in problems(text, {"g": g})} == {hint}


def test_what_is_missing_is_not_outside_of_a_domain(problems):
    missing, outside = problems("dim n; param a[n] in [0, 5];", {"a": [1.0, float("nan"), 9.0]})
    assert missing.code == "BLV0406"
    assert "fill it in" in missing.hint
    assert outside.code == "BLV0405"
    assert outside.notes == ("a[3] = 9",)
    problem = only(problems("dim n; param a[n] in [0, 5];", {"a": [1.0, 9.0]}))
    assert problem.code == "BLV0405"


def test_data_without_rows(problems):
    problem = only(problems("dim n, p; param X[n, p];", {"X": np.zeros((0, 3))}))
    assert problem.code == "BLV0416"
    assert "nothing is left" in problem.hint
