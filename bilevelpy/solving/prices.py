"""Shadow prices that reports read, where a method brings none of its own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bilevelpy.backends import registry
from bilevelpy.errors import BackendError, ExportError
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.ir.walk import duals as prices_read
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums.streaming import is_streamed
from bilevelpy.model import Model
from bilevelpy.numerics.rows.shadow_prices import shadow_prices
from bilevelpy.result import Certificate
from bilevelpy.solving.facts import oracle
from bilevelpy.solving.starts import start_at, start_vectors

UNKNOWN = "the shadow price of `{}` is not known: not unique, or the answer is not certified"

BEYOND = "the declared bounds [{:g}, {:g}] of `dual({})` do not hold here: the price is {:g}"
# How far beyond its declared bounds a price is told to be, relative to its size.
DECLARED = 1e-6

Prices = dict[str, np.ndarray]


def prices_at(
    name: str,
    functions: TorchOracle,
    x: torch.Tensor,
    y: torch.Tensor,
    certificate: Certificate | None,
) -> Prices:
    """Shadow prices of lower rows at a certified answer: the backend's own, or fitted ones."""
    if certificate is None or certificate.kind == "none" or is_streamed(functions.bound):
        return {}
    own = getattr(registry.get(name), "prices", None)
    found: Prices = (own or shadow_prices)(functions, x, y)
    return found


def with_fitted(
    model: Model,
    name: str,
    upper: Mapping[str, Any],
    lower: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, np.ndarray],
    certificate: Certificate | None,
) -> Mapping[str, np.ndarray]:
    """Known shadow prices, and fitted ones where reports read others."""
    if not unknown(model).keys() - known.keys():
        return known
    found: Prices = {}
    with contextlib.suppress(BackendError, ExportError):  # no functions of two vectors, no prices
        functions = oracle(model)
        x, y = start_vectors(functions, start_at(upper, lower), None)
        found = prices_at(name, functions, x, y, certificate)
    return {**found, **known}


def unknown(model: Model) -> Prices:
    """NaN for the shadow prices that reports read."""
    sizes, found = model.bound.data.sizes, {}
    for level, name in prices_read(r.value for r in model.program.reports.values()):
        row = next(c for c in model.program.level(level).constraints if c.name == name)
        found[f"{level}.{name}"] = np.full(tuple(sizes[a] for a in row.axes), math.nan)
    return found


def beyond_declared(model: Model, known: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A sentence for each price that lies outside of its declared bounds, which methods without
    columns for prices do not use.
    """
    found = []
    for level in model.program.lowers:
        for fact in level.assumptions:
            key = f"{level.name}.{fact.constraint}"
            if key not in known or not known[key].size:
                continue
            low, high = (float(np.asarray(evaluate(a, model.bound.data))) for a in fact.arguments)
            price = known[key].ravel()
            worst = price[np.argmax(np.maximum(low - price, price - high))]
            if max(low - worst, worst - high) > DECLARED * max(1.0, abs(worst)):
                found.append(BEYOND.format(low, high, key, worst))
    return tuple(found)


def told(model: Model, known: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A sentence for each price that reports read and nobody knows."""
    return tuple(UNKNOWN.format(n) for n in sorted(unknown(model).keys() - known.keys()))
