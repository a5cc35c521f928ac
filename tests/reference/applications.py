"""Optima of the application models by enumeration, closed form, LP, search over one variable.

Nothing here comes from the package. Followers are solved by ``scipy.optimize``; leaders are
enumerated, or their one decision is searched on a grid that the answer lies on.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize, minimize_scalar

Array = NDArray[np.float64]
DATA = Path(__file__).parents[2] / "models" / "applications" / "data"


def table(name: str) -> dict[str, list[str]]:
    """The columns of a CSV file; the two ends of an arc are ``from`` and ``to``."""
    with (DATA / name).open(encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    head = [
        h if h != "NODE" else ("from", "to")[rows[0][:k].count("NODE")]
        for k, h in enumerate(rows[0])
    ]
    return {h: [row[k] for row in rows[1:]] for k, h in enumerate(head)}


def numbers(name: str, column: str) -> Array:
    return np.array([float(v) for v in table(name)[column]])


# --- test problems ------------------------------------------------------------------------------


def dempe_lp() -> float:
    """The follower takes the greatest x: min(8-y, (13-y)/2, 7y/2); 4x+y >= 8 and x <= 5."""
    y = np.linspace(0, 8, 150_001)
    x = np.minimum(np.minimum(8 - y, (13 - y) / 2), 3.5 * y)
    right = (4 * x + y >= 8) & (x <= 5)
    return float((3 * x + y)[right].min())


def bard_lp() -> float:
    """The follower takes the least y: max(0, 3-x, (3x-4)/2), feasible if y <= 2x, y <= 12-2x."""
    x = np.linspace(0, 12, 1_200_001)
    y = np.maximum(np.maximum(0, 3 - x), (3 * x - 4) / 2)
    right = (y <= 2 * x + 1e-12) & (y <= 12 - 2 * x + 1e-12)
    return float((x - 4 * y)[right].min())


def whole(
    F: Callable[[int, int], float],
    rows: Callable[[int, int], bool],
    coupling: Callable[[int, int], bool],
) -> float:
    """Whole x and y from 0 to 10, a follower that takes the least y of its rows."""
    found = np.inf
    for x in range(11):
        y = next((y for y in range(11) if rows(x, y)), None)
        if y is not None and coupling(x, y):
            found = min(found, F(x, y))
    return found


def moore_bard() -> float:
    return whole(
        lambda x, y: -x - 10 * y,
        lambda x, y: (
            -25 * x + 20 * y <= 30 and x + 2 * y <= 10 and 2 * x - y <= 15 <= 2 * x + 10 * y
        ),
        lambda x, y: True,
    )


def mibs_example(weight: float = 1) -> float:
    return whole(
        lambda x, y: -weight * x - 7 * y,
        lambda x, y: y <= 5 and 2 * x - y <= 7 and -2 * x + 4 * y <= 16,
        lambda x, y: -3 * x + 2 * y <= 12 and x + 2 * y <= 20,
    )


def trilevel() -> float:
    """x, y on a grid of 0.05; z is the greatest of its rows, y the greatest for which one is."""
    found = np.inf
    for i in range(81):
        x = i / 20
        for j in range(80, -1, -1):
            y = j / 20
            z = min(0.5, 3 - x - y, 1 + x - y)
            if z >= max(0, x + y - 1, 1 - x - y) - 1e-12:
                found = min(found, -7 * x - 3 * y + 4 * z)
                break
    return found


# --- networks -----------------------------------------------------------------------------------


def incidence(start: Sequence[str], end: Sequence[str]) -> tuple[Array, list[str]]:
    """Node by arc: 1 where an arc starts, -1 where it ends."""
    nodes = sorted({*start, *end})
    A = np.zeros((len(nodes), len(start)))
    for k, (i, j) in enumerate(zip(start, end, strict=True)):
        A[nodes.index(i), k] += 1
        A[nodes.index(j), k] -= 1
    return A, nodes


def toll_setting(pessimistic: bool = False) -> float:
    """All tolls of the grid; ties by a second LP over the drivers' best flows."""
    arcs = table("toll_arcs.csv")
    A, _ = incidence(arcs["from"], arcs["to"])
    length, capacity = numbers("toll_arcs.csv", "length"), numbers("toll_arcs.csv", "capacity")
    tolled, supply = numbers("toll_arcs.csv", "tolled"), np.array([3.0, 0, 0, -3])
    limits = list(zip(np.zeros_like(capacity), capacity, strict=True))
    found = -np.inf
    where = np.flatnonzero(tolled)
    for grid in itertools.product([0, 0.5, 1, 1.5, 2], repeat=len(where)):
        toll = np.zeros_like(length)
        toll[where] = grid
        cheapest = linprog(length + toll, A_eq=A, b_eq=supply, bounds=limits).fun
        sign = 1.0 if pessimistic else -1.0
        revenue = linprog(
            sign * toll,
            A_ub=[length + toll],
            b_ub=[cheapest + 1e-8],
            A_eq=A,
            b_eq=supply,
            bounds=limits,
        ).fun
        found = max(found, sign * revenue)
    return found


def routes(arcs: dict[str, list[str]]) -> list[list[int]]:
    """All routes from s to t, as numbers of arcs (the networks have no cycles)."""
    done, open_ = [], [("s", [])]
    while open_:
        node, route = open_.pop()
        if node == "t":
            done.append(route)
        else:
            open_ += [(arcs["to"][k], [*route, k]) for k, i in enumerate(arcs["from"]) if i == node]
    return done


def shortest_path_interdiction(budget: int = 2) -> float:
    arcs = table("blockable_arcs.csv")
    length, delay = numbers("blockable_arcs.csv", "length"), numbers("blockable_arcs.csv", "delay")
    ways = routes(arcs)
    found = -np.inf
    for size in range(budget + 1):
        for blocked in itertools.combinations(range(len(length)), size):
            cost = length.copy()
            cost[list(blocked)] += delay[list(blocked)]
            found = max(found, min(cost[way].sum() for way in ways))
    return float(found)


def max_flow_interdiction(budget: int = 1) -> float:
    """The least cut, over all sets of removed arcs (max flow, min cut)."""
    arcs, capacity = table("pipes.csv"), numbers("pipes.csv", "capacity")
    found = np.inf
    for removed in itertools.combinations(range(len(capacity)), budget):
        left = capacity.copy()
        left[list(removed)] = 0
        for size in range(4):
            for side in itertools.combinations("abc", size):
                near = {"s", *side}
                cut = [
                    k for k, i in enumerate(arcs["from"]) if i in near and arcs["to"][k] not in near
                ]
                found = min(found, left[cut].sum())
    return float(found)


def inverse_shortest_path() -> float:
    """min |c - guess|_1 where the seen route is no longer than any other, an LP."""
    arcs = table("route_costs.csv")
    guess, seen = numbers("route_costs.csv", "guess"), numbers("route_costs.csv", "seen")
    n = len(guess)
    other = np.zeros((len(routes(arcs)), n))
    for row, way in zip(other, routes(arcs), strict=True):
        row[way] = 1
    eye, zero = np.eye(n), np.zeros((len(other), n))
    A = np.vstack(
        [np.hstack([seen - other, zero]), np.hstack([eye, -eye]), np.hstack([-eye, -eye])]
    )
    b = np.concatenate([np.zeros(len(other)), guess, -guess])
    return float(linprog(np.r_[np.zeros(n), np.ones(n)], A_ub=A, b_ub=b).fun)


def braess() -> float:
    """Without the bridge 3 cars on each side, with it 2 on each of the three routes (Wardrop)."""
    total = 6 * (10 * 3 + 50 + 3)
    # sa and bt carry 4, at and sb 2, the bridge 2: all three routes take 92.
    assert 10 * 4 + 50 + 2 == 10 * 4 + 10 + 2 + 10 * 4 == 92
    return min(total, 6 * 92)


# --- markets ------------------------------------------------------------------------------------


def prices(demand: float, merit: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Lowest and highest valid price of a merit order of (cost, size): the marginal cost from below
    and from above.
    """
    total, low, high = 0.0, -np.inf, np.inf
    for cost, size in sorted(merit):
        if size <= 0:
            continue
        if total < demand - 1e-9:
            low = cost
        if total + size > demand + 1e-9:
            high = cost
            break
        total += size
    return low, high


def strategic_bidding(pessimistic: bool = False, step: float = 0.5) -> float:
    cost, size = numbers("units.csv", "cost"), numbers("units.csv", "size")
    found = -np.inf
    for offer in np.arange(0, 100 + step / 2, step):
        low, high = prices(100, [(0, offer), *zip(cost, size, strict=True)])
        # The producer has the least cost of all, so all that is offered is sold.
        found = max(found, (low if pessimistic else high) * offer)
    return float(found)


def generation_investment(pessimistic: bool = False, step: float = 0.5) -> float:
    """At the highest (lowest) price that is valid; the unit of cost 10 is the cheapest and sells
    min(x, 200).
    """
    found = np.inf
    for x in np.arange(0, 250 + step / 2, step):
        low, high = prices(200, [(10, x), (12, 150), (15, 100)])
        y = min(x, 200)
        gain = (10 - (low if pessimistic else high)) * y
        found = min(found, 40000 * x + 8760 * gain)
    return float(found)


def nash_cournot() -> float:
    """Followers' equilibrium q_i = (12 - Q)/3, profit Q (12 - Q)/3: greatest at Q = 6."""
    return max((13 - Q - 2 * (12 - Q) / 3 - 1) * Q for Q in np.linspace(0, 12, 1201))


# --- games and whole numbers --------------------------------------------------------------------


def knapsack_interdiction(strength: int = 4) -> float:
    profit, effort, weight = (numbers("items.csv", c) for c in ("profit", "effort", "weight"))
    choices = [np.array(c) for c in itertools.product([0, 1], repeat=len(profit))]
    packs = [c for c in choices if weight @ c <= 6]
    return float(
        min(
            max(profit @ pack for pack in packs if not (pack * take).any())
            for take in choices
            if effort @ take <= strength
        )
    )


def competitive_location(shops: int = 2) -> float:
    at, home, demand = (
        np.array([0, 2, 4, 6, 8]),
        numbers("customers.csv", "home"),
        numbers("customers.csv", "demand"),
    )
    away = np.abs(home[:, None] - at)
    return float(
        max(
            min(demand[away[:, k] >= away[:, list(own)].min(1)].sum() for k in range(5))
            for own in itertools.combinations(range(5), shops)
        )
    )


def optknock(knockouts: int = 2) -> float:
    """The routes that are left and grow fastest; of several the one with the most product."""
    cell = json.loads((DATA / "cell.json").read_text("utf-8"))
    growth, product = np.array(cell["growth"]), np.array(cell["product"])
    found = -np.inf
    for size in range(knockouts + 1):
        for out in itertools.combinations(range(len(growth)), size):
            left = np.delete(np.arange(len(growth)), out)
            if left.size:
                fastest = left[growth[left] >= growth[left].max() - 1e-12]
                found = max(found, cell["uptake"] * product[fastest].max())
    return float(found)


def security_game() -> float:
    """The attacker takes column 1 where p1 > 1/2, column 2 where p1 < 1/2, either at 1/2."""
    p = np.linspace(0, 1, 100_001)
    first = 2 * p + 1 * (1 - p)
    second = 4 * p + 3 * (1 - p)
    return float(max(first[p >= 0.5].max(), second[p <= 0.5].max()))


def defence_allocation() -> float:
    """All targets are made equally good: v_i (1 - c_i) = t, sum c = 1, t = (n - 1)/sum(1/v)."""
    return float(2 / np.sum(1 / np.array([10.0, 6, 4])))


# --- machine learning ---------------------------------------------------------------------------


def svm_selection() -> float:
    """The machine as a QP by SLSQP, C by a grid and a bounded search around its best point."""
    X = np.column_stack([numbers("svm_training.csv", c) for c in ("x1", "x2")])
    V = np.column_stack([numbers("svm_validation.csv", c) for c in ("x1", "x2")])
    y, z = numbers("svm_training.csv", "label"), numbers("svm_validation.csv", "label")

    def loss(C: float) -> float:
        """Through the dual: max sum a - |sum a y x|^2/2, y'a = 0, 0 <= a <= C."""
        Q = (y[:, None] * X) @ (y[:, None] * X).T
        dual = minimize(
            lambda a: a @ Q @ a / 2 - a.sum(),
            np.full(len(y), C / 2),
            jac=lambda a: Q @ a - 1,
            bounds=[(0, C)] * len(y),
            constraints={"type": "eq", "fun": lambda a: y @ a, "jac": lambda a: y},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        ).x
        w = X.T @ (dual * y)
        # b is any minimiser of the losses; the leader takes the best one.
        marks = y - X @ w
        training = np.maximum(0, 1 - y * (X @ w + marks[:, None])).sum(1)
        valid = marks[training <= training.min() + 1e-7]
        ends = np.concatenate([np.linspace(valid.min(), valid.max(), 201), valid])
        return float(np.maximum(0, 1 - z * (V @ w + ends[:, None])).mean(1).min())

    grid = np.linspace(0.05, 2, 196)
    centre = grid[np.argmin([loss(C) for C in grid])]
    around = minimize_scalar(loss, bounds=(centre - 0.02, centre + 0.02), method="bounded")
    return float(min(around.fun, loss(centre)))
