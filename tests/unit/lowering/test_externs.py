"""Functions from Python: what is checked at binding, and how they take part in derivatives."""

from __future__ import annotations

import pytest
import torch

from bilevelpy.errors import BackendError
from tests.unit.lowering.programs import oracle, point

TEXT = """
dim k = 3; set I = 1..4;
extern h(t[k], c) -> [] : smooth;
upper { var c; minimize c^2; }
lower l { var w[k]; minimize h(w, c) + sumsq(w); }
"""
FAMILY = """
dim k = 3; set I = 1..4;
extern h(t[k], c) -> [k] : smooth;
param a[I] = 2;
upper { var c; minimize c^2; }
lower l[i in I] { var w[k]; minimize sum(h(w, a[i] * c)^2); }
"""


def good(t, c):
    return (t.sin() * c).sum() + (t**4).sum()


def test_function():
    o = oracle(TEXT, {"h": good})
    x, y = point(o)
    assert o.f(x, y) == pytest.approx(float(good(y, x[0]) + (y**2).sum()))
    H = torch.diag(-y.sin() * x[0] + 12 * y**2 + 2)
    torch.testing.assert_close(o.hessian(x, y), H)
    torch.testing.assert_close(o.pullback(x, y)(y), (H @ y, (y.cos() * y).sum().reshape(1)))


def test_parameters_of_a_module_are_constants():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(4, 1, dtype=torch.float64)

        def forward(self, t, c):
            return torch.tanh(self.inner(torch.cat([t, c.reshape(1)])))[0]

    net = Net()
    o = oracle(TEXT, {"h": net})
    x, y = point(o)
    o.value_grad_f(x, y)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert o.f(x, y) == pytest.approx(float(net(y, x[0]).detach() + (y**2).sum()))


def untraceable(t, c):
    # A condition on a value: vmap cannot run it.
    return t * c if float(t.detach().sum()) > 1e9 else torch.exp(t) * c


@pytest.mark.parametrize("function", [lambda t, c: torch.exp(t) * c, untraceable])
def test_families_apply_it_to_every_element(function):
    o = oracle(FAMILY, {"h": function})
    x, y = point(o)
    expected = ((2 * x * y.reshape(4, 3).exp()) ** 2).sum()
    assert o.f(x, y) == pytest.approx(float(expected))
    torch.testing.assert_close(o.hessian(x, y), torch.diag(16 * x**2 * torch.exp(2 * y)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda t, c: t * c, "shape"),
        (lambda t, c: good(t, c).float(), "float32"),
        (lambda t, c: "text", "failed"),
        (lambda t, c: t.detach().numpy(), "shape"),
        (lambda t, c: (t - t.detach()).abs().sqrt().sum(), "not finite"),
        (lambda t: t, "failed"),
    ],
)
def test_wrong_functions_are_refused_at_binding(function, message):
    with pytest.raises(BackendError, match=message):
        oracle(TEXT, {"h": function})
