"""Betty's engine: two ``ImplicitProblem`` and a hypergradient of its own.

The upper step, its projection and the note of the point are in the hook ``param_callback``;
PyTorch's L-BFGS is the lower step by the hook ``custom_optimizer_step``. Of its hypergradients
the Neumann series is exact in the limit; its conjugate gradients build each direction from the
residual before last, so more than one iteration need not help.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.libraries.arrays import descend, in_torch
from benchmarks.libraries.engines import Settings, optimizer, vector
from benchmarks.libraries.problem import Drive, Problem, Watch

METHODS = ("neumann", "cg", "darts")
SETTINGS = {
    "quadratic-1000": Settings(
        lower="lbfgs", steps=60, rate=0.0019, tolerance=1e-3, method="neumann", iterations=1700,
        upper="sgd", upper_rate=0.67,
    ),
    "logistic-22": Settings(
        lower="momentum", steps=3, rate=0.131, method="cg", iterations=1, upper="rprop",
        upper_rate=1.2,
    ),
    "breast_cancer": Settings(
        lower="lbfgs", steps=10, rate=0.167, tolerance=1e-4, method="neumann", iterations=1000,
        upper="rprop", upper_rate=0.6,
    ),
    "cleaning-digits": Settings(
        lower="lbfgs", steps=10, rate=1.6, tolerance=1e-4, method="neumann", iterations=1000,
        upper="rprop", upper_rate=0.84,
    ),
}  # fmt: skip


def drive(problem: Problem, settings: Settings | None = None) -> Drive:
    """By its engine until it is stopped."""
    torch, f, F = in_torch(problem)
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    s = settings or SETTINGS[problem.task]
    low, high = problem.low, problem.high

    class Upper(ImplicitProblem):  # type: ignore[misc]
        def training_step(self, batch: Any) -> Any:
            return F(self.lower(), self.module())

        def param_callback(self, *_: Any) -> None:
            self.module.value.data.clamp_(low, high)
            self.watch(self.module.value.detach().numpy())

    class Lower(ImplicitProblem):  # type: ignore[misc]
        def training_step(self, batch: Any) -> Any:
            return f(self.module(), self.upper())

    class Solved(Lower):
        def custom_optimizer_step(self) -> None:
            y = self.module.value
            y.data = descend(torch, f, y, self.upper.module.value, s.steps, s.tolerance)

    def make(cls: Any, name: str, start: Any, config: Any, opt: str, rate: float) -> Any:
        module = vector(torch, start)
        batch = [torch.zeros(1)]
        chosen = optimizer(torch, opt, module.parameters(), rate)
        return cls(
            name=name, config=config, module=module, optimizer=chosen, train_data_loader=[batch]
        )

    def run(watch: Watch) -> None:
        solved = s.lower == "lbfgs"
        lower = make(
            Solved if solved else Lower, "lower", np.zeros(problem.size),
            Config(
                type=s.method, unroll_steps=1 if solved else s.steps, cg_iterations=s.iterations,
                neumann_iterations=s.iterations, neumann_alpha=s.rate,
            ),
            "sgd" if solved else s.lower, s.rate,
        )  # fmt: skip
        upper = make(
            Upper, "upper", problem.start, Config(retain_graph=True), s.upper, s.upper_rate
        )
        upper.watch = watch
        Engine(
            config=EngineConfig(train_iters=10**9, valid_step=10**9),
            problems=[upper, lower],
            dependencies={"u2l": {upper: [lower]}, "l2u": {lower: [upper]}},
        ).run()

    return run
