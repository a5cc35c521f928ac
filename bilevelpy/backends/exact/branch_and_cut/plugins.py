"""The questions of SCIP in a tree, as plugins: is a point one, what leaves it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bilevelpy.backends.exact.engine.expressions import engine

if TYPE_CHECKING:
    from bilevelpy.backends.exact.branch_and_cut.tree import Tree
    from bilevelpy.backends.exact.engine.scip import Model

# Points are checked after all other rows.
LAST = -9_000_000
# Settings that are not true of rows that come later: symmetries and parts are those of the rows
# that are there, and points are handed over by values of all variables.
OFF = {
    "misc/usesymmetry": 0,
    "misc/allowweakdualreds": False,
    "misc/allowstrongdualreds": False,
    "constraints/components/maxprerounds": 0,
    "presolving/donotaggr": True,
    "presolving/donotmultaggr": True,
}


def include(tree: Tree, model: Model) -> None:
    """The tree's questions as plugins of SCIP, and the settings that go with them."""
    for name, value in OFF.items():
        model.scip.setParam(name, value)
    module = engine()
    results = module.SCIP_RESULT
    said = {
        "cut": {"result": results.CONSADDED},
        "separated": {"result": results.SEPARATED},
        "branched": {"result": results.BRANCHED},
        "cutoff": {"result": results.CUTOFF},
        "yes": {"result": results.FEASIBLE},
        "no": {"result": results.INFEASIBLE},
        "none": {"result": results.DIDNOTRUN},
    }

    variables = model.scip.getVars()

    class Checks(module.Conshdlr):  # type: ignore[misc, name-defined]
        def conscheck(self, constraints: Any, solution: Any, *_: Any) -> dict[str, Any]:
            return said["yes" if tree.accepts(solution) else "no"]

        def consenfolp(self, *_: Any) -> dict[str, Any]:
            return said[tree.enforce(True)]

        def consenfops(self, *_: Any) -> dict[str, Any]:
            return said[tree.enforce(False)]

        def conssepalp(self, *_: Any) -> dict[str, Any]:
            return said[tree.separate()]

        def conslock(self, constraint: Any, kind: Any, up: int, down: int) -> None:
            for variable in variables:
                self.model.addVarLocks(variable, up + down, up + down)

    class Splits(module.Branchrule):  # type: ignore[misc, name-defined]
        def branchexeclp(self, allowaddcons: bool) -> dict[str, Any]:
            return said[tree.branch() if allowaddcons else "none"]

    class Points(module.Heur):  # type: ignore[misc, name-defined]
        def heurexec(self, timing: Any, infeasible: bool) -> dict[str, Any]:
            values = tree.better()
            if values is None:
                return {"result": results.DIDNOTRUN}
            taken = model.try_point(values, self)
            return {"result": results.FOUNDSOL if taken else results.DIDNOTFIND}

    model.scip.includeConshdlr(
        Checks(), "followers", "responses are best ones", enfopriority=LAST, chckpriority=LAST,
        sepafreq=1, propfreq=-1, needscons=False,
    )  # fmt: skip
    model.scip.includeBranchrule(
        Splits(), "sets", "leaves sets out", priority=1_000_000, maxdepth=-1, maxbounddist=1.0
    )
    timing = module.SCIP_HEURTIMING
    model.scip.includeHeur(
        Points(), "responses", "best responses", "b", priority=1_000_000, freq=1,
        timingmask=timing.AFTERLPNODE | timing.AFTERPSEUDONODE | timing.DURINGLPLOOP,
    )  # fmt: skip
