"""Settings of the libraries that run loops of their own: Betty and BOAT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What `tune` searches; the settings of each task are in the module of the library.

    Attributes:
        lower: the lower solver: ``lbfgs`` (PyTorch's, to ``tolerance`` in at most ``steps``
            iterations) or an optimizer of PyTorch that takes ``steps`` steps of ``rate``.
        method: the hypergradient of the library, with ``iterations`` where it iterates.
        upper: the upper optimizer of PyTorch, at ``upper_rate``.
    """

    lower: str = "lbfgs"
    steps: int = 100
    rate: float = 1e-3
    tolerance: float = 1e-5
    method: str = "cg"
    iterations: int = 30
    upper: str = "brisk"
    upper_rate: float = 0.3


def optimizer(torch: Any, name: str, parameters: Any, rate: float) -> Any:
    """An optimizer of PyTorch by its name here; ``brisk`` is Adam with a shorter memory."""
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=rate)
    if name == "momentum":
        return torch.optim.SGD(parameters, lr=rate, momentum=0.9, nesterov=True)
    if name == "rprop":
        return torch.optim.Rprop(parameters, lr=rate, step_sizes=(1e-9, 2.0))
    return torch.optim.Adam(parameters, lr=rate, betas=(0.9 if name == "adam" else 0.5, 0.99))


def vector(torch: Any, value: Any) -> Any:
    """A module that is one vector of variables."""

    class Vector(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(value, dtype=torch.float64))

        def forward(self) -> Any:
            return self.value

    return Vector()
