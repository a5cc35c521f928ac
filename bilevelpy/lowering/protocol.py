"""What a backend sees of a model: functions of two flat float64 vectors, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from bilevelpy.lowering.domains.product import ProductSet

    Vec = torch.Tensor  # 1-D, float64


@dataclass(slots=True)
class Counts:
    """Evaluations so far: values, gradients, products. A Hessian counts as the products that it
    takes.
    """

    F: int = 0
    f: int = 0
    grad_F: int = 0
    grad_f: int = 0
    hvp: int = 0
    jvp: int = 0
    lower_solves: int = 0

    def as_dict(self) -> dict[str, int]:
        """Plain numbers by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Oracle(Protocol):
    """A bound model as functions of ``x`` in R^n (upper) and ``y`` in R^m (all followers).

    Both levels are minimisations here (the sign of a maximising level is turned, `F_sign`/`f_sign`
    = -1 there). All vectors are detached 1-D float64 tensors; results never carry an autograd
    graph. `jvp` in `counts` counts cross products f_xy v; the pullback gives f_yy v and f_xy v
    together and counts one of each.
    """

    n: int
    m: int
    x0: Vec
    y0: Vec
    domain_x: ProductSet
    domain_y: ProductSet
    counts: Counts
    F_sign: float
    f_sign: float

    def F(self, x: Vec, y: Vec) -> float: ...
    def f(self, x: Vec, y: Vec) -> float: ...
    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dy)."""
        ...

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        ...

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx (value-function methods)."""
        ...

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """f and df/dy in one evaluation."""
        ...

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        """F, dF/dx and dF/dy in one evaluation."""
        ...

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """v -> (f_yy v, f_xy v), built once at (x, y) and reused by every product."""
        ...

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """v -> f_yy v only."""
        ...

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """v -> f_xy v (length n) only: one product where the adjoint is known already."""
        ...

    def hessian(self, x: Vec, y: Vec) -> torch.Tensor:
        """f_yy as a dense symmetric (m, m) tensor."""
        ...
