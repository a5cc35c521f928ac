"""Families of small models whose optimum is computed here by other means than any solver's."""

from itertools import combinations, pairwise

import numpy as np
from scipy.optimize import linprog

from bilevelpy.importers.blv_text import linear

DUAL_BOUND = 100.0
"""Multipliers are quotients of determinants of entries up to 4: none is larger."""


def linear_model(seed):
    """min c'(x, y), x in [0, 6], y in argmin d'y on a polytope: (text, optimum, high point).

    An optimum lies at a vertex of the polytope of both levels' rows (Bialas and Karwan 1984), so
    that all vertices at which y is optimal for the follower are compared. Programs whose optimum is
    that of the relaxation without a follower are passed over.
    """
    rng = np.random.default_rng(seed)
    while True:
        c, d = rng.integers(-4, 5, 3), rng.integers(-4, 5, 2)
        a = rng.integers(-4, 5, (3, 3))
        inside = np.array([2.0, 3.0, 3.0])
        b = (a @ inside + rng.integers(1, 5, 3)).astype(float)
        high = np.array([6.0, 8.0, 8.0])
        rows, ends = np.vstack([a, np.eye(3), -np.eye(3)]), np.concatenate([b, high, np.zeros(3)])
        best, top = np.inf, linprog(c, rows, ends, bounds=(None, None)).fun
        for chosen in combinations(range(9), 3):
            part = rows[list(chosen)]
            if abs(np.linalg.det(part)) < 1e-9:
                continue
            v = np.linalg.solve(part, ends[list(chosen)])
            if (rows @ v > ends + 1e-7).any() or c @ v >= best:
                continue
            answer = linprog(d, a[:, 1:], b - a[:, 0] * v[0], bounds=[(0, 8)] * 2)
            if answer.status == 0 and d @ v[1:] <= answer.fun + 1e-7:
                best = float(c @ v)
        if d.any() and np.isfinite(best) and best > top + 0.5:
            break
    names = ["x", "y1", "y2"]

    def body(entries, of=names):
        return linear([(n, float(v)) for n, v in zip(of, entries, strict=True)])

    shown = "\n".join(f"    r{k}: {body(a[k])} <= {int(b[k])};" for k in range(3))
    text = (
        f"model linear{seed};\nupper {{ var x in [0, 6]; minimize {body(c)}; }}\n"
        f"lower f {{\n  var y1 in [0, 8], y2 in [0, 8];\n  minimize {body(d, names[1:])};\n"
        f"  subject to\n{shown}\n}}\n"
    )
    return text, best, float(top)


def quadratic_model(seed, *, kinks=True):
    """Separable quadratic follower on a box: y_i = clip((b_i + c_i x) / a_i, 0, u_i).

    The upper objective is then a parabola between the values of x at which a bound is reached: the
    least of all pieces is the optimum. Without ``kinks`` no bound is ever reached, and the program
    has one local optimum.
    """
    rng = np.random.default_rng(seed)
    a, c = rng.integers(1, 4, 2).astype(float), rng.integers(1, 4, 2).astype(float)
    b = rng.integers(0, 3, 2).astype(float) + (0.0 if kinks else 1.0)
    u = np.array([3.0, 2.0]) if kinks else np.array([40.0, 40.0])
    goal, wish = rng.integers(0, 6, 2).astype(float), float(rng.integers(0, 6))

    def value(x):
        y = np.clip((b + c * x) / a, 0.0, u)
        return float(np.sum((y - goal) ** 2) + (x - wish) ** 2)

    ends = np.clip(np.concatenate([(a * u - b) / c, -b / c, [0.0, 5.0]]), 0.0, 5.0)
    ends = np.unique(ends)
    candidates = list(ends)
    for left, right in pairwise(ends):
        # A parabola through three points of the piece.
        xs = np.array([left, (left + right) / 2, right])
        p = np.polyfit(xs, [value(x) for x in xs], 2)
        if p[0] > 1e-9:
            candidates.append(float(np.clip(-p[1] / (2 * p[0]), left, right)))
    best = min(value(x) for x in candidates)
    text = (
        f"model quadratic{seed};\n"
        f"upper {{ var x in [0, 5] start 1; "
        f"minimize (y1 - {goal[0]:g})^2 + (y2 - {goal[1]:g})^2 + (x - {wish:g})^2; }}\n"
        f"lower f {{\n  var y1 in [0, {u[0]:g}], y2 in [0, {u[1]:g}];\n"
        f"  minimize {a[0] / 2:g}*y1^2 + {a[1] / 2:g}*y2^2 "
        f"- ({b[0]:g} + {c[0]:g}*x)*y1 - ({b[1]:g} + {c[1]:g}*x)*y2;\n}}\n"
    )
    # Without a follower everything but what the bounds forbid can be had.
    y = np.clip(goal, 0.0, u)
    return text, best, float(np.sum((y - goal) ** 2) + (np.clip(wish, 0, 5) - wish) ** 2)


def distinct(make, count=10, **options):
    """The first models of a family whose optimum is not the value without a follower."""
    found, seed = [], 0
    while len(found) < count:
        made = make(seed, **options)
        if abs(made[1] - made[2]) > 1e-2 * (1 + abs(made[1])):
            found.append(made)
        seed += 1
    return found


LINEAR = [linear_model(seed) for seed in range(10)]
QUADRATIC = distinct(quadratic_model)
SMOOTH = distinct(quadratic_model, kinks=False)
