"""The size of what is compiled depends on the text of a model, never on its data."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import bilevelpy as bl
from bilevelpy.ir.walk import postorder, program_roots
from bilevelpy.lowering.oracle import TorchOracle

TEXT = """
model sizes;
dim n, m, p, k;
set GROUP;
param X[n, p], Y[n, k], V[m, p], Z[m, k], weight[GROUP, p] in [0, inf];
upper {
  var lam[p] in [-5, 5];
  minimize mean(sumsq(V[i, :] @ W - Z[i, :]) for i in m) + sum(s[j]^2 for j in p where j > 1);
}
lower fit {
  var W[p, k];
  minimize sum((sum(X[i, j] * W[j, c] for j in p) - Y[i, c])^2 for i in n, c in k)/2
         + sum(exp(lam[j]) * W[j, c]^2 for j in p, c in k)/2;
}
lower smooth {
  var s[p];
  minimize sum(weight[g, j] * (s[j] - lam[j])^2 for g in GROUP, j in p)
         + sum((s[j] - s[j-1])^2 for j in p where j > 1);
}
"""


def sizes(n: int, m: int, p: int, k: int, groups: int) -> tuple[int, int, list[int]]:
    """Nodes of the program, and of the graphs of both objectives, for data of these lengths."""
    rng = np.random.default_rng(0)
    data = {
        "X": rng.normal(size=(n, p)),
        "Y": rng.normal(size=(n, k)),
        "V": rng.normal(size=(m, p)),
        "Z": rng.normal(size=(m, k)),
        "GROUP": [f"g{j}" for j in range(groups)],
        "weight": rng.uniform(size=(groups, p)),
    }
    model = bl.parse(TEXT, data=data)
    oracle = TorchOracle(model.bound)
    graphs = [len(oracle.compiled((e,)).module.graph.nodes) for e in (oracle.F_expr, oracle.f_expr)]
    return len(list(postorder(program_roots(model.program)))), oracle.m, graphs


@settings(max_examples=5, deadline=None)
@given(st.tuples(*[st.integers(2, 6)] * 5))
def test_ten_times_the_data_is_the_same_graph(lengths: tuple[int, int, int, int, int]) -> None:
    nodes, m, graphs = sizes(*lengths)
    ten_nodes, ten_m, ten_graphs = sizes(*(10 * s for s in lengths))
    assert ten_m > m
    assert (ten_nodes, ten_graphs) == (nodes, graphs)
