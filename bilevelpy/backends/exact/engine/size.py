"""How large a scalar tree becomes as an expression of SCIP, counted before one is made.

A tree shares its parts, an expression does not: polynomials are multiplied out, a whole power is
as many products, and what is read twice is written twice. Sixty squares of squares are 60 nodes of
a tree and 2^60 entries.
"""

from __future__ import annotations

import math

from bilevelpy.errors import BackendError
from bilevelpy.reductions import scalar as sc

# Entries of products of polynomials; some seconds of work, in which no time limit is looked at.
LARGEST = 20_000_000
# Factors of a product; SCIP takes the square of their number, two seconds here.
DEGREE = 3_000
# A node of what is no polynomial takes as long as so many of them.
NODE = 10.0


def check_size(root: sc.Scalar) -> None:
    """Refuse a tree whose expression would be too large.

    Raises
    ------
    BackendError
        With the number of entries that was reached.
    """
    run = _Count(max(1, len(sc.columns([root]))))
    for node in sc.postorder(root):
        run.read(node)


class _Count:
    """Terms and degree of every polynomial in the tree, the number of nodes of the rest."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.polynomials: dict[int, tuple[float, float]] = {}
        self.nodes: dict[int, float] = {}
        self.spent = 0.0

    def read(self, node: sc.Scalar) -> None:
        """One node whose arguments have been read."""
        match node:
            case sc.Num():
                self.polynomials[id(node)] = 1.0, 0.0
            case sc.Col():
                self.polynomials[id(node)] = 1.0, 1.0
            case sc.Call():
                inner = [self.polynomials.get(id(a)) for a in node.arguments]
                known = [p for p in inner if p is not None]
                made = self._polynomial(node, known) if len(known) == len(inner) else None
                if made is not None:
                    self.polynomials[id(node)] = made
                    return
                repeated = 2.0 if node.function in ("max", "min") else 1.0
                size = 1.0 + repeated * sum(self._size(a) for a in node.arguments)
                self.nodes[id(node)] = size
                self._check(self.spent + NODE * size)

    def _polynomial(
        self, node: sc.Call, inner: list[tuple[float, float]]
    ) -> tuple[float, float] | None:
        """Terms and degree of a call of polynomials; None where it is none."""
        match node.function:
            case "add":
                terms, degree = sum(t for t, _ in inner), max(d for _, d in inner)
                self._spend(terms * degree)
                return terms, degree
            case "mul":
                found = inner[0]
                for other in inner[1:]:
                    found = self._times(found, other)
                return found
            case "pow":
                exponent = node.arguments[1]
                if not isinstance(exponent, sc.Num) or exponent.value < 0:
                    return None
                if not float(exponent.value).is_integer():
                    return None
                if exponent.value > DEGREE:
                    raise _refused(f"a degree of more than {DEGREE:,}")
                found = 1.0, 0.0
                for _ in range(int(exponent.value)):
                    found = self._times(found, inner[0])
                return found
        return None

    def _times(self, a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
        terms, degree = a[0] * b[0], a[1] + b[1]
        if degree > DEGREE:
            raise _refused(f"a degree of more than {DEGREE:,}")
        # Never more than there are monomials of that degree.
        most = math.lgamma(degree + self.columns + 1.0) - math.lgamma(degree + 1.0)
        most -= math.lgamma(self.columns + 1.0)
        if most < math.log(terms):
            terms = math.exp(most)
        self._spend(max(a[0] * b[0], terms) * max(degree, 1.0))
        return terms, degree

    def _size(self, node: sc.Scalar) -> float:
        if id(node) in self.nodes:
            return self.nodes[id(node)]
        terms, degree = self.polynomials[id(node)]
        return terms * max(degree, 1.0)

    def _spend(self, count: float) -> None:
        self.spent += count
        self._check(self.spent)

    def _check(self, count: float) -> None:
        if count > LARGEST:
            raise _refused(f"more than {LARGEST:,} entries")


def _refused(size: str) -> BackendError:
    return BackendError(
        "the backend `exact` multiplies out and repeats what a function shares, and one would have "
        f"{size}; name its parts as variables with constraints"
    )
