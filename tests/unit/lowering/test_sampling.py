"""Batches that partition an axis add up to the objective: exactly, in every derivative and form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import bilevelpy as bl
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.ir import mapped
from bilevelpy.ir.mapped import budget, is_mapped, streamed_bytes
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums import streaming
from bilevelpy.lowering.sums.batches import Partition, length
from bilevelpy.lowering.sums.sampled import SampledOracle
from bilevelpy.lowering.sums.streaming import StreamedOracle

# Rounding of sums in another order.
ROUNDING = 1e-12

HEAD = "model s; dim n, m, p; param X[n, p], y[n], Xv[m, p], yv[m];"
MATRIX = """
upper { var lam[p] start 0; minimize mean((Xv @ w - yv)^2) + 0.01 * sumsq(lam); }
lower fit { var w[p]; minimize mean(logistic(-y * (X @ w))) / 2 + sum(exp(lam) * w^2) / 2; }
"""
INDEX = """
upper { var lam[p] start 0;
  minimize sum((sum(Xv[i, j] * w[j] for j in p) - yv[i])^2 for i in m) / m + 0.01 * sumsq(lam); }
lower fit { var w[p];
  minimize sum(logistic(-y[i] * sum(X[i, j] * w[j] for j in p)) for i in n) / n / 2
    + sum(exp(lam[j]) * w[j]^2 for j in p) / 2; }
"""
# A weight of each training row is an upper variable: batches gather their rows of it.
CLEANING = """
upper { var c[n] start 0; minimize sum((Xv @ w - yv)^2); }
lower fit { var w[p];
  minimize sum(sigmoid(c[i]) * (sum(X[i, j] * w[j] for j in p) - y[i])^2 for i in n) + sumsq(w); }
"""
# Sums over the rows that data selects.
WHERE = """
upper { var lam start 0; minimize sum((Xv @ w - yv)^2); }
lower fit { var w[p];
  minimize sum((sum(X[i, j] * w[j] for j in p) - y[i])^2 for i in n where y[i] > 0)
    + exp(lam) * sumsq(w); }
"""
# Rows that depend on each other through data: centred columns.
CENTRED = """
upper { var lam start 0; minimize mean((Xv @ w - yv)^2); }
lower fit { var w[p];
  minimize mean((sum((X[i, j] - mean(X[k, j] for k in n)) * w[j] for j in p)
    - (y[i] - mean(y)))^2 for i in n) + exp(lam) * sumsq(w); }
"""
# A root of a sum is no sum: it is evaluated as a whole; the other term is sampled.
MIXED = """
upper { var lam start 0; minimize mean((Xv @ w - yv)^2); }
lower fit { var w[p];
  minimize sqrt(1 + sum((X @ w)^2)) + mean((X @ w - y)^2) + exp(lam) * sumsq(w); }
"""
FORMS = {
    "matrix": MATRIX,
    "index": INDEX,
    "cleaning": CLEANING,
    "where": WHERE,
    "centred": CENTRED,
    "mixed": MIXED,
}


def data(*, sparse: bool = False) -> dict[str, object]:
    rng = np.random.default_rng(0)
    X, Xv = rng.normal(size=(50, 4)), rng.normal(size=(33, 4))
    X[rng.random(X.shape) < 0.5] = 0.0
    values = {"y": np.sign(rng.normal(size=50)), "Xv": Xv, "yv": rng.normal(size=33)}
    return {"X": sp.csr_matrix(X) if sparse else X, **values}


def oracle(form: str, *, sparse: bool = False) -> TorchOracle:
    return TorchOracle(bl.parse(HEAD + FORMS[form], data=data(sparse=sparse)).bound)


def point(o: TorchOracle) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randn(k, generator=rng, dtype=torch.float64) for k in (o.n, o.m, o.m))  # type: ignore[return-value]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).norm()) <= ROUNDING * (1.0 + float(b.norm()))


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("form", FORMS)
def test_the_mean_over_all_batches_is_the_objective(form: str, sparse: bool) -> None:
    if sparse and form == "centred":
        pytest.skip("centring makes a matrix dense")
    o = oracle(form, sparse=sparse)
    x, y, v = point(o)
    sampled = SampledOracle(o, batch=8, rng=torch.Generator().manual_seed(0))
    below, above = sampled.counts
    lower = [sampled.at(j, 0) for j in range(below)]
    upper = [sampled.at(0, i) for i in range(above)]
    assert below > 2
    assert above > 2
    assert np.mean([b.f(x, y) for b in lower]) == pytest.approx(o.f(x, y), rel=ROUNDING)
    assert np.mean([b.F(x, y) for b in upper]) == pytest.approx(o.F(x, y), rel=ROUNDING)
    for k, full in enumerate((o.grad_f(x, y), *o.pullback(x, y)(v))):
        assert close(torch.stack([b.triple(x, y, v)[k] for b in lower]).mean(0), full)
    for k, full in enumerate(o.grad_F(x, y)):
        assert close(torch.stack([b.grad_F(x, y)[k] for b in upper]).mean(0), full)
    assert close(torch.stack([b.hessian(x, y) for b in lower]).mean(0), o.hessian(x, y))


@pytest.mark.parametrize("form", FORMS)
def test_passes_by_blocks_equal_passes_in_memory(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "BLOCK", 400)
    bound = bl.parse(HEAD + FORMS[form], data=data()).bound
    o, s = TorchOracle(bound), StreamedOracle(bound)
    x, y, v = point(o)
    assert s.F(x, y) == pytest.approx(o.F(x, y), rel=ROUNDING)
    assert s.f(x, y) == pytest.approx(o.f(x, y), rel=ROUNDING)
    pairs = [
        (s.grad_f(x, y), o.grad_f(x, y)),
        (s.grad_f_x(x, y), o.grad_f_x(x, y)),
        (s.hvp(x, y)(v), o.hvp(x, y)(v)),
        (s.cross(x, y)(v), o.cross(x, y)(v)),
        (s.hessian(x, y), o.hessian(x, y)),
        *zip(s.pullback(x, y)(v), o.pullback(x, y)(v), strict=True),
        *zip(s.grad_F(x, y), o.grad_F(x, y), strict=True),
    ]
    assert all(close(a, b) for a, b in pairs)
    assert s.objectives(x, y) == pytest.approx(o.objectives(x, y), rel=ROUNDING)


def test_batches_count_as_fractions_of_a_pass() -> None:
    o = oracle("matrix")
    x, y, v = point(o)
    sampled = SampledOracle(o, batch=8, rng=torch.Generator().manual_seed(0))
    for j in range(sampled.counts[0]):
        sampled.at(j, 0).triple(x, y, v)
    assert sampled.meter.passes["hvp"] == pytest.approx(1.0)
    assert (o.counts.grad_f, o.counts.hvp, o.counts.jvp) == (1, 1, 1)
    sampled.at(0, 0).grad_f(x, y)
    assert o.counts.grad_f == 1  # whole passes only


def test_penalties_outside_of_the_sum_are_in_every_batch() -> None:
    o = oracle("matrix")
    x, y, _ = point(o)
    zero = torch.zeros_like(y)
    sampled = SampledOracle(o, batch=8, rng=torch.Generator().manual_seed(0))
    penalty = o.f(x, y) - o.f(x - 800.0, y)  # exp(lam) vanishes
    for j in range(sampled.counts[0]):
        batch = sampled.at(j, 0)
        assert batch.f(x, y) - batch.f(x - 800.0, y) == pytest.approx(penalty)
        assert batch.f(x, zero) == pytest.approx(batch.f(x - 800.0, zero))


def test_a_lower_level_without_a_sum_is_refused() -> None:
    text = "model q; upper { var x; minimize (y - 1)^2; } lower l { var y; minimize (y - x)^2; }"
    with pytest.raises(BackendError, match="no sum over a data axis"):
        SampledOracle(TorchOracle(bl.parse(text).bound))


@pytest.mark.parametrize("run", [1, 7])
@pytest.mark.parametrize("batch", [1, 8, 100, 1000])
def test_partitions_hold_every_element_once(batch: int, run: int) -> None:
    partition = Partition(100, batch, run=run, rng=torch.Generator().manual_seed(0))
    held = [np.arange(100)[rows] for rows in (partition.rows(j) for j in range(len(partition)))]
    assert sorted(np.concatenate(held).tolist()) == list(range(100))
    assert sum(partition.share(j) for j in range(len(partition))) == pytest.approx(1.0)
    whole = Partition(100, batch)
    assert isinstance(whole.rows(0), slice)
    assert sum(length(whole.rows(j)) for j in range(len(whole))) == 100


def test_a_large_file_is_not_read_into_memory(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILEVELPY_MEMORY", "1e-7")  # a hundred bytes
    values = data()
    X = np.asarray(values["X"], dtype=np.float32)
    np.save(f"{tmp_path}/X.npy", X)
    given = {name: v for name, v in values.items() if name != "X"}
    (path := tmp_path / "m.blv").write_text(HEAD + MATRIX)  # type: ignore[operator]
    for name, v in given.items():
        np.save(f"{tmp_path}/{name}.npy", np.asarray(v))
    model = bl.load(path, data=[f"{tmp_path}/{n}.npy" for n in ("X", *given)])
    arrays = model.bound.data.arrays
    assert is_mapped(arrays["X"])
    assert streamed_bytes(arrays.values()) >= 8 * X.size
    inside = TorchOracle(bl.parse(HEAD + MATRIX, data={"X": X, **given}).bound)
    streamed = streaming.make_oracle(model.bound)
    assert isinstance(streamed, StreamedOracle)
    x, y, _ = point(inside)
    assert close(streamed.grad_f(x, y), inside.grad_f(x, y))
    sampled = SampledOracle(streamed, batch=10)
    batches = [sampled.at(j, 0).grad_f(x, y) for j in range(sampled.counts[0])]
    assert close(torch.stack(batches).mean(0), inside.grad_f(x, y))


def test_the_budget_is_a_number_of_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVELPY_MEMORY", "2.5")
    assert budget() == 2_500_000_000
    for wrong in ("much", "-1", "0", "inf"):
        monkeypatch.setenv("BILEVELPY_MEMORY", wrong)
        with pytest.raises(UsageError, match="number of gigabytes"):
            budget()


def test_values_that_are_no_numbers_are_found_in_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILEVELPY_MEMORY", "1e-7")
    monkeypatch.setattr(mapped, "BLOCK", 128)
    values = {name: np.array(v) for name, v in data().items()}
    values["X"][41, 2] = np.nan
    for name, v in values.items():
        np.save(tmp_path / f"{name}.npy", v)
    (tmp_path / "m.blv").write_text(HEAD + MATRIX)
    with pytest.raises(bl.DataError, match=r"X\[42, 3\] = nan"):
        bl.load(tmp_path / "m.blv", data=[tmp_path / f"{n}.npy" for n in values])
