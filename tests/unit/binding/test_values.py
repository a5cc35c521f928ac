"""What may be bound: numbers, lists, arrays, sparse matrices, tensors, pandas, dicts."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import bilevelpy as bl
from bilevelpy.sema.binding.starts import start_array

MATRIX = "dim n, p; param X[n, p];"
FIRMS = 'set FIRM = {"a", "b", "c"}; param c[FIRM];'


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4], [5, 6]],
        ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)),
        np.array([[1, 2], [3, 4], [5, 6]], dtype=np.int8),
        np.array([[1, 2], [3, 4], [5, 6]], dtype=">f4"),
        np.array([[5, 6], [3, 4], [1, 2]])[::-1],
        torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True),
        torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.bfloat16),
        torch.tensor([[1, 2], [3, 4], [5, 6]]).to_sparse(),
        scipy.sparse.coo_array(np.array([[1, 2], [3, 4], [5, 6]])),
        pd.DataFrame({"x": [1, 3, 5], "y": [2, 4, 6]}, index=["r", "s", "t"]),
    ],
)
def test_matrices(bound, array, value):
    data = bound(MATRIX, {"X": value})
    np.testing.assert_array_equal(array(data, "X"), [[1, 2], [3, 4], [5, 6]])
    assert data.arrays["X"].dtype == np.float64
    assert sorted(data.sizes[a] for a in data.sizes if a.name in "np") == [2, 3]


def test_float64_arrays_are_kept_by_reference(bound):
    for value in (np.ones((3, 2)), np.asfortranarray(np.ones((3, 2)))):
        assert bound(MATRIX, {"X": value}).arrays["X"] is value
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    assert bound("dim n; param X[n, n];", {"X": matrix}).arrays["X"] is matrix


def test_a_large_matrix_is_checked_without_a_copy(bound):
    value = np.zeros((20_000, 1_000))
    value[0, 0] = 1.0
    tracemalloc.start()
    data = bound("dim n, p; param X[n, p] in [0, inf];", {"X": value})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.arrays["X"] is value
    assert peak < 20e6


def test_sparse_matrices_stay_sparse(bound, problems):
    big = scipy.sparse.coo_matrix(([1.0, 2.0, 3.0], ([0, 0, 5], [1, 1, 7])), (100_000, 200_000))
    data = bound("dim n, p; param X[n, p] in [0, inf];", {"X": big})
    assert data.arrays["X"].format == "csr"
    assert data.arrays["X"].nnz == 2
    (problem,) = problems("dim n, p; param X[n, p] in [0, 2];", {"X": big})
    assert problem.notes[0].startswith("X[1, 2] = 3") or "X[1, 2] = 3" in problem.notes[0]
    (problem,) = problems("dim n, p; param X[n, p] in [1, 9];", {"X": big})
    assert problem.code == "BLV0422"


def test_scalars(bound, array):
    for value in (3, 3.0, np.float32(3), np.array([3.0]), [3], True + 2, torch.tensor(3.0)):
        assert array(bound("param a;", {"a": value}), "a") == 3.0
    assert array(bound("param a;", {"a": True}), "a") == 1.0
    np.testing.assert_array_equal(array(bound("dim n = 2; param a[n];", {"a": 5}), "a"), [5, 5])


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("abc", "the text 'abc'"),
        ([1, "b"], "text"),
        ([1j], "complex"),
        ([[1, 2], [3]], "unequal lengths"),
        (np.array([1, "x"], dtype=object), "'x'"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "datetime64"),
        (lambda: 1, "function"),
        ([10**400], "float64"),
        (None, "None"),
        (scipy.sparse.csr_matrix(np.array([[1j]])), "complex"),
        (torch.tensor([1 + 2j]).conj(), "complex"),
        ({"a": "2"}, "the text '2' for a"),
    ],
)
def test_what_is_not_a_number(problems, value, found):
    (problem,) = problems("dim n; param v[n];", {"v": value})
    assert problem.code == "BLV0407"
    assert found in problem.message


@pytest.mark.parametrize(
    ("text", "value", "place"),
    [
        ("dim n; param v[n];", [1.0, None], "v[2] = nan"),
        ("dim n; param v[n];", pd.Series([1, pd.NA], dtype="Int64"), "v[2] = nan"),
        ("set S; param v[S];", {"a": 1, "b": None}, 'v["b"] = nan'),
    ],
)
def test_what_is_missing_is_told_with_its_place(problems, text, value, place):
    (problem,) = problems(text, {"v": value})
    assert problem.code == "BLV0406"
    assert problem.notes == (place,)


def test_numbers_in_arrays_of_objects_are_numbers(bound, array):
    mixed = np.array([1, 2.5, np.float32(3), True], dtype=object)
    np.testing.assert_array_equal(
        array(bound("dim n; param v[n];", {"v": mixed}), "v"), [1, 2.5, 3, 1]
    )


def test_dicts_and_series_are_aligned_by_label(bound, array):
    for value in (
        {"c": 3, "a": 1, "b": 2},
        pd.Series({"b": 2.0, "c": 3.0, "a": 1.0}),
        pd.DataFrame({"x": [2, 1, 3]}, index=["b", "a", "c"]),
        pd.Series([1, 2, 3]),
        [1, 2, 3],
    ):
        np.testing.assert_array_equal(array(bound(FIRMS, {"c": value}), "c"), [1, 2, 3])


def test_labels_along_an_axis_that_counts(bound, array):
    """Labels 1 to n are its elements; other labels say which rows of two tables belong together."""
    text = "dim n, k; param X[n, k], y[n];"
    table = pd.DataFrame([[1, 10], [2, 20], [3, 30]], columns=["u", "v"])
    y = pd.Series([100, 200, 300])

    def rows(X, y):
        data = bound(text, {"X": X, "y": y})
        return array(data, "X")[:, 0].tolist(), array(data, "y").tolist()

    turned = [2, 0, 1]
    assert rows(table, y.loc[turned]) == ([1, 2, 3], [100, 200, 300])
    assert rows(table.loc[turned], y) == ([3, 1, 2], [300, 100, 200])
    assert rows(table.loc[turned], y.loc[turned]) == ([3, 1, 2], [300, 100, 200])
    # Arrays have no labels: they go by position.
    assert rows(table.loc[turned], y.to_numpy()) == ([3, 1, 2], [100, 200, 300])
    drawn = table.set_axis([17, 3, 9])
    assert rows(drawn, y.set_axis([17, 3, 9])) == ([1, 2, 3], [100, 200, 300])
    assert rows(drawn, y.set_axis([17, 3, 9]).sort_index()) == ([1, 2, 3], [100, 200, 300])
    assert rows(drawn, y) == ([1, 2, 3], [100, 200, 300])
    days = pd.date_range("2020-01-01", periods=3)
    assert rows(table.set_axis(days), y.set_axis(days)[::-1]) == ([1, 2, 3], [100, 200, 300])
    twice = [1, 1, 2]
    assert rows(table.set_axis(twice), y.set_axis(twice)) == ([1, 2, 3], [100, 200, 300])
    for value in (pd.Series([3, 1, 2], [3, 1, 2]), pd.DataFrame({"a": [3, 1, 2]}, ["3", "1", "2"])):
        for size in ("dim n; param a[n];", "param a[3];"):
            np.testing.assert_array_equal(array(bound(size, {"a": value}), "a"), [1, 2, 3])


def test_columns_along_an_axis_that_counts(bound, array):
    text = "dim n, m, k; param X[n, k], Z[m, k], w[k];"
    X = pd.DataFrame([[1, 10]], columns=["u", "v"])
    Z = pd.DataFrame([[70, 7]], columns=["v", "u"])
    w = pd.Series({"v": 50, "u": 5})
    data = bound(text, {"X": X, "Z": Z, "w": w})
    np.testing.assert_array_equal(array(data, "Z"), [[7, 70]])
    np.testing.assert_array_equal(array(data, "w"), [5, 50])


def test_tables_that_name_their_rows_differently(problems):
    text = "dim n; param a[n], b[n];"
    a = pd.Series([1, 2, 3], index=["x", "y", "z"])
    (problem,) = problems(text, {"a": a, "b": pd.Series([1, 2, 3], index=["x", "y", "w"])})
    assert problem.code == "BLV0428"
    assert problem.message == "`b` and `a` name their rows along `n` differently"
    assert problem.notes == ('labels differ: "w" of `b`, which `a` lacks',)
    assert "b.to_numpy()" in problem.hint
    a, b = a.set_axis([1, 1, 2]), a.set_axis([1, 2, 1])
    (problem,) = problems(text, {"a": a, "b": b})
    assert problem.notes == ("labels differ: 1 twice, in another order",)


def test_dates_are_labels(bound, array):
    days = pd.date_range("2020-01-01", periods=2)
    price = pd.Series([2, 1], index=days[::-1])
    text = 'set DAY = {"2020-01-01", "2020-01-02"}; param c[DAY];'
    np.testing.assert_array_equal(array(bound(text, {"c": price}), "c"), [1, 2])
    by_day = {date(2020, 1, 2): 2, date(2020, 1, 1): 1}
    np.testing.assert_array_equal(array(bound(text, {"c": by_day}), "c"), [1, 2])


def test_frames_are_aligned_on_both_axes(bound, array):
    text = 'set R = {"a", "b"}; set T = 1..3; param D[R, T];'
    frame = pd.DataFrame([[6, 5, 4], [3, 2, 1]], index=["b", "a"], columns=[3, 2, 1])
    np.testing.assert_array_equal(array(bound(text, {"D": frame}), "D"), [[1, 2, 3], [4, 5, 6]])
    long = frame.stack()
    np.testing.assert_array_equal(array(bound(text, {"D": long}), "D"), [[1, 2, 3], [4, 5, 6]])
    nested = {"b": {1: 4, 2: 5, 3: 6}, "a": {"1": 1, "2": 2, "3": 3}}
    np.testing.assert_array_equal(array(bound(text, {"D": nested}), "D"), [[1, 2, 3], [4, 5, 6]])
    rows = {"b": [4, 5, 6], "a": [1, 2, 3]}
    np.testing.assert_array_equal(array(bound(text, {"D": rows}), "D"), [[1, 2, 3], [4, 5, 6]])
    pairs = {("a", 1): 1, ("a", 2): 2, ("a", 3): 3, ("b", 1): 4, ("b", 2): 5, ("b", 3): 6}
    np.testing.assert_array_equal(array(bound(text, {"D": pairs}), "D"), [[1, 2, 3], [4, 5, 6]])


def test_labels_of_the_data_define_a_set(bound, array):
    data = bound(
        "set FIRM; param c[FIRM], d[FIRM];", {"c": {"x": 1, "y": 2}, "d": {"y": 4, "x": 3}}
    )
    (firm,) = [a for a in data.sizes if a.name == "FIRM"]
    assert data.labels[firm] == ("x", "y")
    np.testing.assert_array_equal(array(data, "d"), [3, 4])
    data = bound("set FIRM; param c[FIRM];", {"c": [1, 2], "FIRM": ["y", "x"]})
    assert data.labels[next(a for a in data.sizes if a.name == "FIRM")] == ("y", "x")


def test_sets_and_dims_are_bound_by_name(bound):
    data = bound(
        "dim n; set YEAR; param a[n] = 1, b[YEAR] = 2;",
        {"n": 4},
        keywords={"YEAR": range(2020, 2023)},
    )
    assert sorted(len(v) for v in data.arrays.values()) == [3, 4]


def test_pairs(bound, array):
    text = "set NODE; set ARC within NODE * NODE; param cost[ARC];"
    data = bound(text, {"cost": {("a", "b"): 1, ("b", "c"): 2}})
    axes = {a.name: a for a in data.sizes}
    assert set(data.labels[axes["NODE"]]) == {"a", "b", "c"}
    labels = data.labels[axes["NODE"]]
    assert [(labels[i], labels[j]) for i, j in data.members[axes["ARC"]]] == [
        ("a", "b"),
        ("b", "c"),
    ]
    data = bound(text, {"cost": [1, 2], "ARC": [("a", "b"), ("b", "c")], "NODE": ["c", "b", "a"]})
    np.testing.assert_array_equal(
        data.members[next(a for a in data.sizes if a.name == "ARC")], [[2, 1], [1, 0]]
    )


def test_frames_of_elements(bound, array):
    text = "set NODE; set ARC within NODE * NODE; param cost[ARC];"
    arcs = pd.DataFrame({"from": ["a", "b"], "to": ["b", "a"]})
    nodes = pd.DataFrame({"name": ["a", "b"]})
    cost = {("b", "a"): 2, ("a", "b"): 1}
    data = bound(text, {"NODE": nodes, "ARC": arcs, "cost": cost})
    np.testing.assert_array_equal(array(data, "cost"), [1, 2])


def test_precedence(bound, array, tmp_path):
    (tmp_path / "a.json").write_text('{"a": 3, "b": 3, "c": 3}')
    (tmp_path / "b.json").write_text('{"a": 2, "b": 2}')
    text = "param a = 4, b = 4, c = 4, d = 4;"
    files = [(None, tmp_path / "a.json")]
    data = bound(text, tmp_path / "b.json", keywords={"a": 1}, files=files)
    assert [float(array(data, k)) for k in "abcd"] == [1, 2, 3, 4]
    assert data.origins == {
        "a": "argument a",
        "b": 'b.json["b"]',
        "c": 'a.json["c"]',
        "d": "default",
    }


def test_defaults(bound, array):
    data = bound(
        "dim n; param v[n], t = sum(v)^2, s[n] = v / t, k[n] = 2, z[n] = [7, 8];", {"v": [1, 3]}
    )
    assert array(data, "t") == 16
    np.testing.assert_array_equal(array(data, "s"), [1 / 16, 3 / 16])
    np.testing.assert_array_equal(array(data, "k"), [2, 2])
    np.testing.assert_array_equal(array(data, "z"), [7, 8])
    data = bound("dim m; param z[m] = [7, 8, 9], y[m] = 1;")
    np.testing.assert_array_equal(array(data, "y"), [1, 1, 1])
    data = bound('set S = {"a", "b"}; param t[S] = {"b": 2, "a": 1};')
    np.testing.assert_array_equal(array(data, "t"), [1, 2])


def test_domains_that_hold(bound):
    bound(
        """
        dim n; set S = {"a", "b"};
        param D[n, n] in psd, w[n] in simplex, z[n] in binary, i[n] in integers(0, 5),
          r[n] in ball(2), hi[S], q[S] in [0, hi], f[n] in [0, inf];
        """,
        {
            "D": [[2, 1], [1, 2]],
            "w": [0.25, 0.75],
            "z": [0, 1],
            "i": [5, 0],
            "r": [1, 1],
            "hi": [1, 2],
            "q": [1, 2],
            "f": [np.inf, 0],
        },
    )


def test_a_frame_is_a_table(bound, array):
    frame = pd.DataFrame({"FIRM": ["b", "a"], "c": [2.0, 1.0], "more": ["x", "y"]})
    text = 'set FIRM = {"a", "b"}; param c[FIRM];'
    np.testing.assert_array_equal(array(bound(text, frame), "c"), [1, 2])
    np.testing.assert_array_equal(array(bound(text, frame.set_index("FIRM")), "c"), [1, 2])


class Column:
    """A column of Polars (``to_list``) or of Arrow (``to_pylist``)."""

    def __init__(self, name, values):
        setattr(self, name, lambda: values)


def test_columns_of_other_libraries_are_elements(bound):
    text = "set S; param v[S] = 1;"
    objects = np.array(["b", "a"], dtype=object)
    for value in (Column("to_list", ["b", "a"]), Column("to_pylist", ["b", "a"]), objects):
        assert len(bound(text, {"S": value}).arrays["v"]) == 2


class Broken:
    def __getattr__(self, name):
        raise RuntimeError("broken")

    def __array__(self, *arguments, **options):
        raise RuntimeError("broken")


def test_objects_that_raise(problems):
    for value in (Broken(), [Broken()]):
        (problem,) = problems("dim n; param v[n];", {"v": value})
        assert problem.code == "BLV0407"
        (problem,) = problems("set S; param v[S] = 1;", {"S": value})
        assert problem.code == "BLV0419"
        assert problems("param v;", value)[0].code == "BLV0411"


def test_binding_imports_no_other_library():
    code = (
        "import sys, bilevelpy.sema.bind; "
        "print([m for m in ('torch', 'scipy', 'pandas') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


class Labelled:
    """What an array of xarray can do, as far as binding asks."""

    __module__ = "xarray.core.dataarray"
    ndim = 1

    def to_pandas(self) -> pd.Series:
        return pd.Series({"b": 2.0, "a": 1.0})


@pytest.mark.parametrize(
    ("text", "value", "wanted"),
    [
        ("dim n, p; param X[n, p];", scipy.sparse.dok_array(np.eye(2)), np.eye(2)),
        ("dim n; param X[n];", torch._neg_view(torch.tensor([1.0, 2.0])), [-1, -2]),
        ("dim n; param X[n];", [Decimal("1.5"), Decimal(2)], [1.5, 2]),
        ("param X;", Decimal("1.5"), 1.5),
        ('set S = {"a", "b"}; param X[S];', Labelled(), [1, 2]),
    ],
)
def test_numbers_of_other_libraries(text: str, value: object, wanted: object) -> None:
    upper = "upper { var x in [0, 1]; minimize x + sum(X); }"
    found = bl.parse(f"model m; {text} {upper}", X=value).bound.data.arrays["X"]
    assert np.array_equal(found.toarray() if scipy.sparse.issparse(found) else found, wanted)


class Dimensions:
    """A matrix of xarray."""

    __module__ = "xarray.core.dataarray"
    ndim = 2

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame, self.dims = frame, (frame.index.name, frame.columns.name)

    def transpose(self, *names: str) -> Dimensions:
        assert names == self.dims[::-1]
        return Dimensions(self.frame.T)

    def to_pandas(self) -> pd.DataFrame:
        return self.frame


FRAME = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], index=["u", "v"], columns=["u", "v"])


@pytest.mark.parametrize(
    ("rows", "columns", "wanted"),
    [
        ("C", "D", [[1, 2], [3, 4]]),
        ("D", "C", [[1, 3], [2, 4]]),
        (None, None, [[1, 2], [3, 4]]),
        ("D", None, [[1, 2], [3, 4]]),
    ],
)
@pytest.mark.parametrize("made", [lambda f: f, lambda f: f.stack(), Dimensions])
def test_dimensions_that_bear_the_names_of_sets(
    made: Callable[[pd.DataFrame], object], rows: str | None, columns: str | None, wanted: object
) -> None:
    """The labels are the same either way, the names tell: values and starts."""
    value = made(FRAME.rename_axis(index=rows, columns=columns))
    text = 'set C = {"u", "v"}; set D = {"u", "v"}; param X[C, D];'
    model = bl.parse(f"model m; {text} upper {{ var x[C, D]; minimize sumsq(x - X); }}", X=value)
    assert np.array_equal(model.bound.data.arrays["X"], wanted)
    (x,) = model.program.upper.variables
    assert np.array_equal(start_array(model.bound, "x", x, value), wanted)


def test_a_generator_is_to_become_a_list() -> None:
    with pytest.raises(bl.DataError, match="type generator \\(make a list of it\\)"):
        bl.parse("model m; dim n; param X[n]; upper { var x; minimize x; }", X=(v for v in [1.0]))
