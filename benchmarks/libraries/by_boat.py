"""BOAT's ``Problem.run_iter``: gradient descent (NGD) and a hypergradient of its own.

Its lower steps are those of `higher`; where the lower level is solved by PyTorch's L-BFGS, that
runs before each iteration and one step of NGD follows.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np

from benchmarks.libraries.arrays import descend, in_torch
from benchmarks.libraries.engines import Settings, optimizer, vector
from benchmarks.libraries.problem import Drive, Problem, Watch

METHODS = ("cg", "ns", "rad")
SETTINGS = {
    "quadratic-1000": Settings(
        lower="lbfgs", steps=30, rate=0.001, tolerance=1e-4, method="cg", iterations=80,
        upper="sgd", upper_rate=0.84,
    ),
    "logistic-22": Settings(
        lower="momentum", steps=3, rate=0.236, method="rad", upper="rprop", upper_rate=1.68
    ),
    "breast_cancer": Settings(
        lower="lbfgs", steps=30, rate=0.0681, tolerance=1e-4, method="cg", iterations=40,
        upper="rprop", upper_rate=0.14,
    ),
    "cleaning-digits": Settings(
        lower="lbfgs", steps=10, rate=0.273, tolerance=1e-4, method="cg", iterations=20,
        upper="rprop", upper_rate=0.84,
    ),
}  # fmt: skip


def loss(feed: dict[str, Any], upper: Any, lower: Any, params: Any = None) -> Any:
    """The objective that the dictionary holds: BOAT looks its losses up by name."""
    return feed["loss"](lower() if params is None else lower(params=params), upper())


def drive(problem: Problem, settings: Settings | None = None) -> Drive:
    """By its iterations until it is stopped."""
    torch, f, F = in_torch(problem)
    import boat_torch

    s = settings or SETTINGS[problem.task]
    solved = s.lower == "lbfgs"
    named = {"function": f"{__name__}.loss"}

    def run(watch: Watch) -> None:
        upper, lower = vector(torch, problem.start), vector(torch, np.zeros(problem.size))
        iterative = {"tolerance": 1e-14, "k": s.iterations}
        engine = boat_torch.Problem(
            {
                "fo_op": None, "gm_op": ["NGD"], "na_op": [s.method.upper()],
                "lower_level_model": lower, "upper_level_model": upper,
                "lower_level_var": list(lower.parameters()),
                "upper_level_var": list(upper.parameters()),
                "lower_level_opt": optimizer(
                    torch, "sgd" if solved else s.lower, lower.parameters(), s.rate
                ),
                "upper_level_opt": optimizer(torch, s.upper, upper.parameters(), s.upper_rate),
                "lower_iters": 1 if solved else s.steps, "device": "cpu",
                "CG": iterative, "NS": iterative, "RGT": {"truncate_iter": 0},
                "GDA": {"alpha_init": 0.0, "alpha_decay": 0.0},
                "accumulate_grad": False, "copy_last_param": True, "return_grad": False,
                "loss_log_path": os.devnull,
            },
            {"lower_level_loss": named, "upper_level_loss": named},
        )  # fmt: skip
        engine.build_ll_solver()
        engine.build_ul_solver()
        for k in itertools.count():
            if solved:
                y = lower.value
                y.data = descend(torch, f, y, upper.value, s.steps, s.tolerance)
            engine.run_iter({"loss": f}, {"loss": F}, current_iter=k)
            upper.value.data.clamp_(problem.low, problem.high)
            watch(upper.value.detach().numpy())

    return run
