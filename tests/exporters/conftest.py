"""Consumers for the tests of formats."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
SHARED = Path(__file__).parents[3] / "shared" / "problems"


@pytest.fixture
def scip():
    """Solve a file with SCIP: its status and objective."""
    module = pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")

    def solve(path):
        model = module.Model()
        model.hideOutput()
        model.readProblem(str(path))
        model.optimize()
        return model.getStatus(), model.getObjVal() if model.getNSols() else None

    return solve


@pytest.fixture
def highs():
    """Solve a file with HiGHS: its objective, or None where it cannot be read."""
    pytest.importorskip("highspy", reason="needs HiGHS (pip install highspy)")
    from highspy._core import HighsStatus, _Highs

    def solve(path):
        solver = _Highs()
        solver.setOptionValue("output_flag", False)
        if solver.readModel(str(path)) == HighsStatus.kError:
            return None
        solver.run()
        return solver.getInfo().objective_function_value

    return solve


@pytest.fixture
def highs_point():
    """Solve a file with HiGHS: its objective, and the values of columns by name."""
    pytest.importorskip("highspy", reason="needs HiGHS (pip install highspy)")
    from highspy._core import HighsStatus, _Highs

    def solve(path):
        solver = _Highs()
        solver.setOptionValue("output_flag", False)
        assert solver.readModel(str(path)) == HighsStatus.kOk
        solver.run()
        values = dict(zip(solver.getLp().col_names_, solver.getSolution().col_value, strict=True))
        return solver.getInfo().objective_function_value, values

    return solve


@pytest.fixture
def glpk():
    """Solve a GMPL or LP file with GLPK."""
    glp = pytest.importorskip("swiglpk", reason="needs GLPK (pip install swiglpk)")

    def solve(path):
        glp.glp_term_out(0)
        problem = glp.glp_create_prob()
        if path.suffix == ".mod":
            space = glp.glp_mpl_alloc_wksp()
            assert glp.glp_mpl_read_model(space, str(path), 0) == 0
            assert glp.glp_mpl_generate(space, None) == 0
            glp.glp_mpl_build_prob(space, problem)
        else:
            assert glp.glp_read_lp(problem, None, str(path)) == 0
        options = glp.glp_iocp()
        glp.glp_init_iocp(options)
        options.presolve = 1
        assert glp.glp_intopt(problem, options) == 0
        return glp.glp_mip_obj_val(problem)

    return solve


@pytest.fixture
def shared():
    """The folder of standard problems, which is not part of the package."""
    if not SHARED.is_dir():
        pytest.skip("the standard problems (../shared/problems) are not here")
    return SHARED
