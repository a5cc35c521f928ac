"""Evaluations on another device or in single precision, for solvers that work in float64.

Points are sent as they are asked for, data lies there from the start. Gradients come back in
float64: dot products, steps and factors of the solver keep their digits, only the passes over the
data have fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.errors import UsageError
from bilevelpy.lowering.oracle import TorchOracle

if TYPE_CHECKING:
    from bilevelpy.lowering.domains.product import ProductSet
    from bilevelpy.lowering.protocol import Counts

Vec = torch.Tensor

# Relative accuracies of sums over data.
SINGLE, DOUBLE = 1e-6, 1e-12


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises
    ------
    UsageError
        With what PyTorch says of it.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0][:160]
        raise UsageError(
            f"device `{device}` is not available here: {why} (PyTorch {torch.__version__}); "
            "leave `device` out to compute on the CPU"
        ) from error


class DeviceOracle:
    """An oracle of the protocol whose functions are evaluated in ``dtype`` on ``device``."""

    def __init__(self, home: TorchOracle, device: str, dtype: torch.dtype) -> None:
        check_device(device)
        self._there = TorchOracle(home.bound, dtype=dtype, device=device)
        self._place: dict[str, Any] = {"device": self._there.device, "dtype": dtype}
        self.n, self.m = home.n, home.m
        self.x0, self.y0 = home.x0, home.y0
        self.domain_x: ProductSet = home.domain_x
        self.domain_y: ProductSet = home.domain_y
        self.counts: Counts = self._there.counts
        self.F_sign, self.f_sign = home.F_sign, home.f_sign
        # What changes of f are told from rounding by, relative to f.
        self.resolution = SINGLE if dtype is torch.float32 else DOUBLE
        # Rows stay at home: they are few beside the data of objectives.
        self.g, self.G = home.g, home.G

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        return self._there.F(*self._sent(x, y))

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        return self._there.f(*self._sent(x, y))

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        """F and its derivatives."""
        F, by_x, by_y = self._there.value_grad_F(*self._sent(x, y))
        return F, _on_cpu(by_x), _on_cpu(by_y)

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """dF in both variables."""
        by_x, by_y = self._there.grad_F(*self._sent(x, y))
        return _on_cpu(by_x), _on_cpu(by_y)

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """f and its derivative in y."""
        f, by_y = self._there.value_grad_f(*self._sent(x, y))
        return f, _on_cpu(by_y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df in y."""
        return _on_cpu(self._there.grad_f(*self._sent(x, y)))

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df in x."""
        return _on_cpu(self._there.grad_f_x(*self._sent(x, y)))

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``."""
        inner = self._there.pullback(*self._sent(x, y))

        def product(v: Vec) -> tuple[Vec, Vec]:
            Hv, Jv = inner(v.to(**self._place))
            return _on_cpu(Hv), _on_cpu(Jv)

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``."""
        inner = self._there.hvp(*self._sent(x, y))
        return lambda v: _on_cpu(inner(v.to(**self._place)))

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v``."""
        inner = self._there.cross(*self._sent(x, y))
        return lambda v: _on_cpu(inner(v.to(**self._place)))

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """f_yy, dense."""
        return _on_cpu(self._there.hessian(*self._sent(x, y)))

    def _sent(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        return x.to(**self._place), y.to(**self._place)


def _on_cpu(v: Vec) -> Vec:
    """In float64 on the CPU."""
    return v.detach().to(device="cpu", dtype=torch.float64)
