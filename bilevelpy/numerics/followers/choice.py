"""The leader's choice among best responses of followers that are convex, but not strictly.

The best responses of a convex quadratic follower with one of them, y*, are the feasible y with
``H y = H y*`` and ``c'y = c'y*`` (O. L. Mangasarian, Oper. Res. Letters 7, 1988). F is minimised
over that set, of all followers at once, where it is convex in y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from bilevelpy.numerics.followers.response import JointResponse, Response
from bilevelpy.reductions.optimality.validity import is_definite

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# What the followers may lose for the leader's sake, relative to their terms: rounding.
ROOM = 1e-9
# A pivot of the rows that hold a response below this fraction of the largest is none; the columns
# up to which these rows are examined.
PIVOT, EXAMINED = 1e-9, 5000
# The least eigenvalue of F in y, relative to the largest, above which it is convex; its size.
CONVEX, DENSE = 1e-10, 2000


@dataclass(slots=True)
class Choice:
    """``needed``: responses may not be unique; ``possible``: F is convex in them, and in the upper
    variables ``more`` that are chosen with them, and the upper rows ``rows`` that read both are
    affine.
    """

    system: System
    joint: JointResponse
    needed: bool
    possible: bool
    columns: Array
    rows: Array

    @classmethod
    def of(cls, joint: JointResponse, more: Array) -> Choice:
        """What there is to choose in a system."""
        system = joint.system
        needed = not is_definite(system)
        columns = np.concatenate([joint.own, more])
        chosen = set(columns.tolist())
        functions = system.upper_rows.functions
        reading = [r for r in range(system.upper_rows.count) if functions.reads(r) & chosen]
        blocks = [
            functions.quadratic[r][columns][:, columns] for r in reading if r in functions.quadratic
        ]
        trees = bool(system.objective.trees) or any(r in functions.trees for r in reading)
        possible = not any(q.nnz for q in blocks) and not trees
        full = system.objective.quadratic.get(0)
        if needed and full is not None:
            block = full[columns][:, columns]
            used = np.unique(block.tocoo().row)
            possible = possible and used.size <= DENSE
            if used.size and possible:
                values = np.linalg.eigvalsh(block[used][:, used].toarray())
                possible = bool(values[0] >= -CONVEX * abs(values[-1]))
        return cls(system, joint, needed, possible, columns, np.array(reading, dtype=np.int64))

    def alone(self, response: Response) -> bool:
        """Whether a response is seen to be the only best one: ``H d = 0`` and ``A d = 0``, with the
        rows A that have multipliers, leave no direction d. False where that is not settled.
        """
        joint = self.joint
        if joint.own.size > EXAMINED:
            return False
        tight, free = joint.held(response)
        rows = sp.csr_array(tight[:, joint.own[free]])
        size = (
            np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).reshape(-1))
            if rows.shape[0]
            else np.ones(0)
        )
        rows = sp.diags_array(1.0 / np.maximum(size, 1e-300)) @ rows
        block = sp.csr_array(joint.block_at(response.values))[free][:, free]
        top = float(abs(block).max()) if block.nnz else 1.0
        gram = sp.csc_matrix(block / max(top, 1e-300) + rows.T @ rows)
        if not free.size:
            return True
        if bool((gram.diagonal() <= PIVOT).any()):
            return False
        try:
            factor = splu(gram, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        except RuntimeError:  # exactly singular
            return False
        pivots = np.abs(factor.U.diagonal())
        return bool(pivots.min() > PIVOT * pivots.max())

    def best(self, response: Response) -> tuple[Array, Array] | None:
        """Values of all columns with what is best for the leader, and the multipliers of ``rows``;
        None where the leader's rows cannot be met, or the solver fails.
        """
        system, joint, z, v = self.system, self.joint, self.columns, response.values
        base = v.copy()
        base[z] = 0.0
        cost = np.asarray(joint.jacobian(system.objective, base)[:, z].todense()).reshape(-1)
        own = joint.own.size
        lower, upper = system.lower_rows, system.upper_rows.take(self.rows)
        matrices = [sp.csr_array(joint.jacobian(r.functions, base)[:, z]) for r in (upper, lower)]
        constants = [r.functions.value(base) for r in (upper, lower)]
        columns = system.columns
        whole = sp.csr_array(sp.vstack([*matrices, sp.eye_array(z.size, format="csr")]))
        low, high = (
            np.concatenate([ends(upper) - constants[0], ends(lower) - constants[1], bound[z]])
            for ends, bound in (
                (lambda r: r.lower, columns.lower),
                (lambda r: r.upper, columns.upper),
            )
        )
        # The face of the followers' optima: H y and c'y are those of the response.
        block = sp.csr_array(joint.block_at(v))
        used = np.flatnonzero(np.diff(block.indptr))
        curved = sp.csr_array(sp.hstack([block[used], sp.csr_array((used.size, z.size - own))]))
        away = v.copy()
        away[joint.own] = 0.0
        linear = np.zeros(z.size)
        linear[:own] = joint.slope(away)
        room = ROOM * max(float(np.abs(linear) @ np.abs(v[z])), 1.0)
        equal = np.flatnonzero(low == high)
        up = np.flatnonzero(np.isfinite(high) & (low != high))
        down = np.flatnonzero(np.isfinite(low) & (low != high))
        parts = [curved, whole[equal], sp.csr_array(linear[None, :]), whole[up], -whole[down]]
        a = sp.csc_matrix(sp.vstack(parts))
        b = np.concatenate(
            [curved @ v[z], low[equal], [linear @ v[z] + room], high[up], -low[down]]
        )
        first = used.size + equal.size
        cones = [clarabel.ZeroConeT(first), clarabel.NonnegativeConeT(1 + up.size + down.size)]
        full = system.objective.quadratic.get(0)
        bend = sp.csc_matrix((z.size, z.size)) if full is None else full[z][:, z]
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        top = sp.csc_matrix(sp.triu(bend, format="csc"))
        found = clarabel.DefaultSolver(top, cost, a, b, cones, settings).solve()
        if str(found.status) not in ("Solved", "AlmostSolved"):
            return None
        dual = np.array(found.z)
        multipliers = np.zeros(low.size)
        multipliers[equal] = dual[used.size : first]
        multipliers[up] += dual[first + 1 : first + 1 + up.size]
        multipliers[down] -= dual[first + 1 + up.size :]
        values = v.copy()
        values[z] = np.clip(np.array(found.x), columns.lower[z], columns.upper[z])
        return values, multipliers[: self.rows.size]
