"""Strategic offers on the 118-bus network, 24 hours; nodal prices are duals of the power flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.large.answer import HERE, Answer, Clock, gap, ours

# Load of the hours of a day, as a share of the peak.
SHAPE = (
    0.62, 0.58, 0.56, 0.55, 0.57, 0.64, 0.74, 0.85, 0.92, 0.95, 0.97, 0.98,
    0.97, 0.96, 0.95, 0.95, 0.96, 0.99, 1.00, 0.98, 0.94, 0.87, 0.78, 0.69,
)  # fmt: skip
# Buses whose stations belong to the owner, and the greatest offer.
OWNED, CAP = (66, 69), 150.0
INSTANCE = "market: 118 buses, 186 lines, 24 hours"


def make(seed: int = 0) -> dict[str, Any]:
    """Load at every bus: its share of the hour, 5 % up or down."""
    bus, unit, line = (
        np.genfromtxt(HERE / "data" / f"case118_{n}.csv", delimiter=",", names=True)
        for n in ("buses", "units", "lines")
    )
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.95, 1.05, (len(SHAPE), len(bus)))
    owned = np.isin(unit["at"], OWNED).astype(float)
    least = np.tile(unit["cost"], (len(SHAPE), 1))
    return {
        "load": np.round(np.array(SHAPE)[:, None] * bus["load"] * noise, 1),
        **{k: unit[k] for k in ("at", "size", "cost")},
        "owned": owned,
        "least": least,
        "most": np.where(owned > 0, CAP, least),
        **{k: line[k] for k in ("tail", "head", "susceptance", "rate")},
    }


def methods(seconds: float) -> list[Callable[[], Answer]]:
    data = make()
    return [
        partial(ours, INSTANCE, "market.blv", data, seconds),
        partial(by_hand, data, seconds, linear=False),
        partial(by_hand, data, seconds, linear=True),
    ]


def by_hand(data: dict[str, Any], seconds: float, linear: bool) -> Answer:
    """Optimality conditions by hand, one model for each hour, each with its share of the time.

    ``linear``: revenue by strong duality (Ruiz and Conejo 2009) in place of price times sale.
    """
    clock, F, bound, stopped = Clock(), 0.0, 0.0, 0
    hours = len(data["load"])
    for h in range(hours):
        model = _hour(data, h, seconds / hours, linear)
        model.optimize()
        F += model.getObjVal() if model.getNSols() else math.nan
        bound += model.getDualbound()
        stopped += model.getStatus() != "optimal"
    kind = "linear revenue" if linear else "price x sale"
    method = f"SCIP, optimality conditions by hand (SOS1, {kind}), hour by hour"
    note = f"{hours - stopped} of {hours} hours proved"
    return clock.stamp(Answer(INSTANCE, method, F, gap(F, bound), 0, 0, note))


def _hour(data: dict[str, Any], h: int, seconds: float, linear: bool) -> Any:
    from pyscipopt import Model, quicksum

    model = Model()
    model.hideOutput()
    model.setParam("limits/time", seconds)
    at, tail, head = (data[k].astype(int) for k in ("at", "tail", "head"))
    size, cost, owned, load = data["size"], data["cost"], data["owned"], data["load"][h]
    units, lines, buses = range(len(at)), range(len(tail)), range(1, len(load) + 1)

    def free(name: str) -> Any:
        return model.addVar(name, lb=None)

    offer = [model.addVar(f"o{u}", lb=data["least"][h, u], ub=data["most"][h, u]) for u in units]
    g = [model.addVar(f"g{u}", lb=0, ub=size[u]) for u in units]
    angle = {b: free(f"a{b}") if b > 1 else 0.0 for b in buses}
    price = {b: model.addVar(f"p{b}", lb=-1000, ub=1000) for b in buses}
    up, low = ([model.addVar(f"{n}{u}", lb=0) for u in units] for n in ("up", "lo"))
    flow = [data["susceptance"][k] * (angle[tail[k]] - angle[head[k]]) for k in lines]
    over, under = ([model.addVar(f"{n}{k}", lb=0) for k in lines] for n in ("ov", "un"))
    for b in buses:
        into = [g[u] for u in units if at[u] == b]
        into += [flow[k] for k in lines if head[k] == b] + [-flow[k] for k in lines if tail[k] == b]
        model.addCons(quicksum(into) == load[b - 1])
        # Stationarity by the angle of the bus; the first is fixed.
        if b > 1:
            terms = [
                sign
                * data["susceptance"][k]
                * (price[tail[k]] - price[head[k]] + over[k] - under[k])
                for k in lines
                for sign, place in ((1, tail), (-1, head))
                if place[k] == b
            ]
            model.addCons(quicksum(terms) == 0)
    for u in units:
        model.addCons(offer[u] - price[at[u]] + up[u] - low[u] == 0)
        room = model.addVar(f"room{u}", lb=0)
        model.addCons(g[u] + room == size[u])
        model.addConsSOS1([up[u], room], [1, 2])
        model.addConsSOS1([low[u], g[u]], [1, 2])
    for k in lines:
        for side, multiplier in ((1, over[k]), (-1, under[k])):
            room = model.addVar(f"line{k},{side}", lb=0)
            model.addCons(side * flow[k] + room == data["rate"][k])
            model.addConsSOS1([multiplier, room], [1, 2])
    if linear:
        dual = quicksum(load[b - 1] * price[b] for b in buses)
        dual -= quicksum(size[u] * up[u] for u in units)
        dual -= quicksum(data["rate"][k] * (over[k] + under[k]) for k in lines)
        others = quicksum(cost[u] * g[u] for u in units if not owned[u])
        rent = quicksum(size[u] * up[u] - cost[u] * g[u] for u in units if owned[u])
        model.setObjective(dual - others + rent, "maximize")
    else:
        gain = model.addVar("gain", lb=None)
        mine = [(price[at[u]] - cost[u]) * g[u] for u in units if owned[u]]
        model.addCons(gain <= quicksum(mine))
        model.setObjective(gain, "maximize")
    return model
