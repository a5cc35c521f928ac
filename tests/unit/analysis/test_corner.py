"""Moduli from the corner of the upper set where the Hessian of the lower level is least."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilevelpy.analysis import analyze
from bilevelpy.analysis.structure import Evidence
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.scaled import ScaledOracle, Units
from tests.unit.analysis.models import bound, facts

TEXT = """
model m; dim n = 8, p = 3;
param X[n, p], b[n], Q[p, p];
upper {{ var a in [{low}, 9] start 1, s[p] in [0, 4] start 1; minimize a + sumsq(s) + sumsq(w); }}
lower fit {{ var w[p]; minimize {f}; }}
"""
RNG = np.random.default_rng(3)
X, ROOT = RNG.standard_normal((8, 3)), RNG.standard_normal((3, 2))
DATA = {"X": X, "b": RNG.standard_normal(8), "Q": ROOT @ ROOT.T}
FIT = "sumsq(X @ w - b)"
GRAM = 2 * X.T @ X


def judged(f, low=0, **data):
    return facts(TEXT.format(f=f, low=low), **DATA | data)


@pytest.mark.parametrize(
    ("f", "low", "at"),
    [
        (f"{FIT} + a * sumsq(w)", 0, GRAM),
        (f"{FIT} + a * sumsq(w) + a * s[1] * w[2]", 0, GRAM),
        (f"{FIT} + sum(s[i] * w[i]^2 for i in p)", 0, GRAM),
        (f"{FIT} + a * quad(w, Q)", 0.5, GRAM + np.array(DATA["Q"])),
        # Not convex by itself, and the same for every x.
        (f"{FIT} - 0.01 * w[1] * w[2] + a * sumsq(w)", 0, None),
        (f"exp(a) * quad(w, Q) + {FIT}", -1, GRAM + 2 * np.exp(-1) * np.array(DATA["Q"])),
    ],
)
def test_the_least_hessian_proves_a_modulus(f, low, at):
    s = judged(f, low)
    assert (s.convexity.value, s.convexity.evidence) == ("strongly convex", Evidence.PROVED)
    assert (s.unique.value, s.unique.evidence) == (True, Evidence.PROVED)
    assert s.modulus.evidence is Evidence.PROVED
    assert s.warnings == ()
    if at is not None:
        assert s.modulus.value == pytest.approx(np.linalg.eigvalsh((at + at.T) / 2)[0], rel=0.6)


@pytest.mark.parametrize(
    ("f", "low", "data"),
    [
        (f"{FIT} + a * sumsq(w)", 0, {"X": np.outer(X[:, 0], [1.0, 2.0, 0.0])}),  # singular there
        (f"{FIT} + quad(w, Q) / a", 1, {}),  # falls with a
        (f"{FIT} + (a - 2)^2 * sumsq(w)", 0, {}),  # least at a = 2
        ("sumsq(X @ w - b) + sumsq(s * w)", 0, {"X": 0 * X}),  # x within the squares
        (f"{FIT} - 0.001 * a * w[1] * w[2]", 0, {}),  # not convex
        (f"{FIT} + a * sumsq(w)", "-inf", {}),  # no corner
    ],
)
def test_nothing_is_proved_elsewhere(f, low, data):
    s = judged(f, low, **data)
    assert s.modulus.evidence is not Evidence.PROVED or s.modulus.value is None


def test_levels_in_other_units_are_looked_at_elsewhere():
    made = bound(TEXT.format(f=f"{FIT} + a * sumsq(w)", low=0), **DATA)
    units = Units(2 * torch.ones(4, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    s = analyze(made, ScaledOracle(TorchOracle(made), units))
    assert (s.convexity.value, s.convexity.evidence) == ("strongly convex", Evidence.OBSERVED)


def test_no_upper_point_has_less():
    s = judged(f"{FIT} + sum(exp(s[i]) * w[i]^2 for i in p) + a * quad(w, Q)")
    assert s.modulus.evidence is Evidence.PROVED
    for _ in range(50):
        a, e = RNG.uniform(0, 9), RNG.uniform(0, 4, 3)
        least = np.linalg.eigvalsh(GRAM + 2 * np.diag(np.exp(e)) + 2 * a * np.array(DATA["Q"]))[0]
        assert least >= s.modulus.value
