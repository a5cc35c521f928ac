"""Lower levels that are not convex: one of their minima is followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import bilevelpy as bl
from bilevelpy.dispatcher.conditions import DENSE

# The weight of a matrix factorisation, chosen on entries that it has not seen: the start is a
# saddle of the lower level, whose minima are all turned factors.
FACTORS = """
model factors;
dim n, m, k;
param R[n, m], K[n, m];
upper {
  var lam in [-6, 3] start 0;
  minimize sum((1 - K[i, j]) * (sum(U[i, l] * W[j, l] for l in k) - R[i, j])^2 for i in n, j in m)
    / sum(1 - K[i, j] for i in n, j in m);
}
lower fit {
  var U[n, k] start 0.3, W[m, k] start 0.3;
  minimize sum(K[i, j] * (sum(U[i, l] * W[j, l] for l in k) - R[i, j])^2 for i in n, j in m)
    + exp(lam) * (sumsq(U) + sumsq(W));
}
"""


def model() -> bl.Model:
    draw = np.random.default_rng(0)
    R = draw.normal(size=(14, 2)) @ draw.normal(size=(2, 10)) + 0.1 * draw.normal(size=(14, 10))
    K = (draw.random((14, 10)) < 0.6).astype(float)
    return bl.parse(FACTORS, data={"R": R, "K": K}, k=2)


def test_a_minimum_is_followed() -> None:
    facts = bl.analyze(model())
    assert facts.convexity.value == "nonconvex"
    decision = bl.dispatch(facts)
    assert decision.ranked[:3] == ("direct", "aid", "pbgd")
    assert "others may be better" in " ".join(decision.warnings)
    large = bl.dispatch(replace(facts, dim_y=DENSE + 1))
    assert large.ranked[:2] == ("aid", "pbgd")


def test_a_pessimistic_leader_is_refused() -> None:
    facts = replace(bl.analyze(model()), stance="pessimistic")
    assert not {"direct", "aid"} & set(bl.dispatch(facts, backend="exact", force=True).ranked[1:])


def test_the_weight_of_a_factorisation_is_found() -> None:
    known = model()
    result = bl.solve(known, progress=False)
    assert result.success
    assert result.certificate is not None
    assert result.certificate.kind == "local"
    assert any("cannot be excluded" in reason for reason in result.certificate.reasons)
    # As good as the best of alternating least squares over a grid of weights.
    data = known.bound.data.arrays
    assert 1.02 * min(alternating(data["R"], data["K"], s) for s in range(-6, 4)) >= result.F


def alternating(R: np.ndarray, K: np.ndarray, log_weight: float) -> float:
    """The loss on unseen entries of factors fitted by alternating least squares."""
    draw = np.random.default_rng(1)
    U, W = draw.normal(size=(R.shape[0], 2)), draw.normal(size=(R.shape[1], 2))
    ridge = np.exp(log_weight) * np.eye(2)
    for _ in range(500):
        for i in range(len(U)):
            own = W[K[i] > 0]
            U[i] = np.linalg.solve(own.T @ own + ridge, own.T @ R[i][K[i] > 0])
        for j in range(len(W)):
            own = U[K[:, j] > 0]
            W[j] = np.linalg.solve(own.T @ own + ridge, own.T @ R[:, j][K[:, j] > 0])
    return float((((U @ W.T - R) ** 2) * (1 - K)).sum() / (1 - K).sum())
