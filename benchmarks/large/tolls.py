"""Toll setting on a grid of 10 x 10 nodes (360 arcs, 40 of them with tolls), 20 pairs of places."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.large.answer import Answer, Clock, gap, ours

SIDE, PAIRS, TOLLED = 10, 20, 40
SEEDS = (0, 1, 2, 3)


def make(
    seed: int = 0, side: int = SIDE, pairs: int = PAIRS, tolled: int = TOLLED
) -> dict[str, Any]:
    """Arcs in both directions between neighbours; tolled arcs are shorter, as fast roads are."""
    rng = np.random.default_rng(seed)
    place = {(i, j): i * side + j + 1 for i in range(side) for j in range(side)}
    arcs = [
        (place[i, j], place[i + a, j + b])
        for i, j in place
        for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if (i + a, j + b) in place
    ]
    length = rng.integers(5, 21, len(arcs)).astype(float)
    highest = np.zeros(len(arcs))
    chosen = rng.choice(len(arcs), tolled, replace=False)
    highest[chosen] = 2 * length[chosen]
    length[chosen] = np.round(length[chosen] / 2)
    supply = np.zeros((pairs, side * side))
    for k in range(pairs):
        origin, destination = rng.choice(side * side, 2, replace=False)
        supply[k, origin], supply[k, destination] = 1, -1
    return {
        "NODE": list(range(1, side * side + 1)),
        "ARC": arcs,
        "OD": [f"k{k + 1}" for k in range(pairs)],
        "length": length,
        "highest": highest,
        "demand": rng.integers(1, 11, pairs).astype(float),
        "supply": supply,
    }


def called(seed: int) -> str:
    """The name of an instance."""
    return f"tolls: 100 nodes, 360 arcs, 20 pairs, seed {seed}"


def methods(seconds: float) -> list[Callable[[], Answer]]:
    found: list[Callable[[], Answer]] = []
    for seed in SEEDS:
        data = make(seed)
        found += [
            partial(ours, called(seed), "tolls.blv", data, seconds),
            partial(linearised, data, seconds, called(seed)),
        ]
    return [*found, partial(conditions, make(), seconds, called(0))]


def conditions(data: dict[str, Any], seconds: float, instance: str) -> Answer:
    """Optimality conditions by hand: SOS1 pairs, revenue as it stands (toll times flow)."""
    from pyscipopt import quicksum

    clock, model = Clock(), _model(seconds)
    arcs, cost, highest = data["ARC"], data["length"], data["highest"]
    K, A = range(len(data["OD"])), range(len(arcs))
    t = [model.addVar(f"t{a}", lb=0, ub=highest[a]) for a in A]
    revenue = []
    for k in K:
        f = [model.addVar(f"f{k},{a}", lb=0) for a in A]
        s = [model.addVar(f"s{k},{a}", lb=0) for a in A]
        u = _potentials_and_balance(model, data, k, f)
        for a, (i, j) in enumerate(arcs):
            model.addCons(u[i] - u[j] + s[a] == cost[a] + t[a])
            model.addConsSOS1([f[a], s[a]], [1, 2])
        revenue += [data["demand"][k] * t[a] * f[a] for a in A if highest[a] > 0]
    height = model.addVar("revenue", lb=None)
    model.addCons(height <= quicksum(revenue))
    model.setObjective(height, "maximize")
    model.optimize()
    return clock.stamp(_answer(model, instance, "SCIP, optimality conditions by hand (SOS1)"))


def linearised(data: dict[str, Any], seconds: float, instance: str) -> Answer:
    """The mixed-integer program of Labbe, Marcotte and Savard (1998), by hand: flows on tolled arcs
    are binary, their payments are variables, one row of strong duality for each pair.
    """
    from pyscipopt import quicksum

    clock, model = Clock(), _model(seconds)
    arcs, cost, highest = data["ARC"], data["length"], data["highest"]
    K, A = range(len(data["OD"])), range(len(arcs))
    tolled = [a for a in A if highest[a] > 0]
    t = {a: model.addVar(f"t{a}", lb=0, ub=highest[a]) for a in tolled}
    revenue = []
    for k in K:
        f = [model.addVar(f"f{k},{a}", vtype="B" if a in t else "C", lb=0, ub=1) for a in A]
        paid = {a: model.addVar(f"p{k},{a}", lb=0, ub=highest[a]) for a in tolled}
        u = _potentials_and_balance(model, data, k, f)
        for a, (i, j) in enumerate(arcs):
            model.addCons(u[i] - u[j] <= cost[a] + t.get(a, 0))
        for a in tolled:
            model.addCons(paid[a] <= highest[a] * f[a])
            model.addCons(paid[a] <= t[a])
            model.addCons(t[a] - paid[a] <= highest[a] * (1 - f[a]))
        supply = data["supply"][k]
        model.addCons(
            quicksum(cost[a] * f[a] for a in A) + quicksum(paid.values())
            == quicksum(supply[n - 1] * u[n] for n in data["NODE"] if supply[n - 1])
        )
        revenue += [data["demand"][k] * p for p in paid.values()]
    model.setObjective(quicksum(revenue), "maximize")
    model.optimize()
    return clock.stamp(
        _answer(model, instance, "SCIP, the linearised program of the literature by hand")
    )


def _model(seconds: float) -> Any:
    from pyscipopt import Model

    model = Model()
    model.hideOutput()
    model.setParam("limits/time", seconds)
    return model


def _potentials_and_balance(
    model: Any, data: dict[str, Any], k: int, f: list[Any]
) -> dict[int, Any]:
    from pyscipopt import quicksum

    leaving: dict[int, list[Any]] = {n: [] for n in data["NODE"]}
    entering: dict[int, list[Any]] = {n: [] for n in data["NODE"]}
    for a, (i, j) in enumerate(data["ARC"]):
        leaving[i].append(f[a])
        entering[j].append(f[a])
    for n in data["NODE"]:
        balance = quicksum(leaving[n]) - quicksum(entering[n])
        model.addCons(balance == data["supply"][k, n - 1])
    return {n: model.addVar(f"u{k},{n}", lb=None) for n in data["NODE"]}


def _answer(model: Any, instance: str, method: str) -> Answer:
    F = model.getObjVal() if model.getNSols() else math.nan
    return Answer(instance, method, F, gap(F, model.getDualbound()), 0, 0, model.getStatus())
