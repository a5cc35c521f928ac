"""Every primitive: there is a kernel, its values are those of the interpreter, its derivatives are
right twice.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilevelpy.ir import atoms, functions
from bilevelpy.lowering.programs import kernels

POSITIVE = {"log", "sqrt", "entr", "recip"}


def sample(name: str, *shape: int) -> torch.Tensor:
    """Points of the domain, away from kinks."""
    base = torch.linspace(-1.37, 1.21, int(np.prod(shape)), dtype=torch.float64).reshape(shape)
    return base.abs() + 0.3 if name in POSITIVE else base * 0.6 if name == "log1p" else base


def test_tables_are_complete():
    assert set(kernels.ELEMENTWISE) == set(atoms.ELEMENTWISE)
    assert set(kernels.REDUCTIONS) == set(atoms.REDUCTIONS)
    assert set(kernels.MAPS) == set(atoms.MAPS)
    assert set(kernels.MATRICES) == set(atoms.MATRICES)


@pytest.mark.parametrize(
    "name", sorted(set(functions.ELEMENTWISE) - {"pow", "maximum", "minimum", "huber"})
)
def test_unary(name):
    x = sample(name, 6).requires_grad_()
    np.testing.assert_allclose(
        kernels.ELEMENTWISE[name](x).detach(),
        functions.ELEMENTWISE[name](x.detach().numpy()),
        rtol=1e-13,
        atol=1e-14,
    )
    assert torch.autograd.gradcheck(kernels.ELEMENTWISE[name], x)
    assert torch.autograd.gradgradcheck(kernels.ELEMENTWISE[name], x)


@pytest.mark.parametrize("name", ["pow", "maximum", "minimum", "huber", "add"])
def test_binary(name):
    a = torch.tensor([0.4, 1.5, 2.5, 0.7], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([1.1, 0.5, 1.9, 2.2], dtype=torch.float64, requires_grad=True)
    kernel = kernels.ELEMENTWISE[name]
    assert torch.autograd.gradcheck(kernel, (a, b))
    assert torch.autograd.gradgradcheck(kernel, (a, b))
    for left, right in ((a, 0.9), (0.9, b)):
        both = [
            torch.full((4,), v, dtype=torch.float64) if isinstance(v, float) else v
            for v in (left, right)
        ]
        torch.testing.assert_close(kernel(left, right), kernel(*both))


@pytest.mark.parametrize("exponent", [3.0, -2.0, 4.0])
def test_whole_exponents_take_negative_bases(exponent):
    x = torch.tensor([-1.2, -0.3, 0.8], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: kernels.power(x, exponent), x)
    assert torch.autograd.gradgradcheck(lambda x: kernels.power(x, exponent), x)


@pytest.mark.parametrize("name", sorted(set(atoms.REDUCTIONS) - {"any"}))
@pytest.mark.parametrize("dims", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_reductions(name, dims):
    x = (sample(name, 2, 3, 2) + torch.tensor([0.0, 0.05], dtype=torch.float64)).requires_grad_()
    kernel = kernels.REDUCTIONS[name]
    np.testing.assert_allclose(
        kernel(x, dims).detach(), functions.REDUCTIONS[name](x.detach().numpy(), dims), rtol=1e-13
    )
    assert torch.autograd.gradcheck(lambda x: kernel(x, dims), x)
    assert torch.autograd.gradgradcheck(lambda x: kernel(x, dims), x)


@pytest.mark.parametrize("name", sorted(atoms.MAPS))
def test_maps(name):
    x = sample(name, 2, 3).requires_grad_()
    np.testing.assert_allclose(
        kernels.MAPS[name](x).detach(), functions.MAPS[name](x.detach().numpy()), rtol=1e-13
    )
    assert torch.autograd.gradcheck(kernels.MAPS[name], x)
    assert torch.autograd.gradgradcheck(kernels.MAPS[name], x)


@pytest.mark.parametrize("name", sorted(atoms.MATRICES))
def test_matrices(name):
    root = torch.tensor([[[2.0, 0.3], [0.1, 1.4]], [[1.0, -0.6], [0.2, 3.0]]], dtype=torch.float64)
    x = (root @ root.mT).requires_grad_()
    np.testing.assert_allclose(
        kernels.MATRICES[name](x).detach(), functions.MATRICES[name](x.detach().numpy()), rtol=1e-13
    )

    def symmetric(a):
        return kernels.MATRICES[name]((a + a.mT) / 2)

    assert torch.autograd.gradcheck(symmetric, x)
    assert torch.autograd.gradgradcheck(symmetric, x)


def test_softplus_keeps_all_digits_above_the_threshold_of_torch():
    x = torch.tensor([20.5, 25.0, 39.0, 41.0, 800.0, -800.0], dtype=torch.float64)
    np.testing.assert_allclose(
        kernels.softplus(x), functions.softplus(x.numpy()), rtol=1e-15, atol=0
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: kernels.norm2(x, (0,)),
        lambda x: kernels.entr(x).sum(),
        lambda x: kernels.huber(x, 1.0).sum(),
    ],
)
def test_derivatives_at_zero_are_finite(function):
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(function(x), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()


def test_conditions():
    a, b = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
    expected = {
        "lt": [1, 0, 0],
        "le": [1, 1, 0],
        "gt": [0, 0, 1],
        "ge": [0, 1, 1],
        "eq": [0, 1, 0],
        "ne": [1, 0, 1],
        "and": [0, 1, 0],
        "or": [1, 1, 1],
    }
    for name, values in expected.items():
        assert kernels.ELEMENTWISE[name](a, b).tolist() == values, name
    assert kernels.logical_not(a).tolist() == [1, 0, 0]
    assert kernels.select(a, b, 5.0).tolist() == [5, 1, 0]
    assert kernels.any_nonzero(torch.eye(2), (0,)).tolist() == [1, 1]


def test_logdet_of_an_indefinite_matrix_is_nan():
    assert torch.isnan(kernels.logdet(torch.tensor([[1.0, 2.0], [2.0, 1.0]])))
