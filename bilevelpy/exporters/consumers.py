"""Programs that read what was written: each solves a file and says where its optimum is.

Python programs and GAMS run as processes of their own; SCIP, HiGHS, GLPK and ONNX Runtime are used
through their packages. What is not installed raises :class:`Missing`, with the package that would
do it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bilevelpy.errors import ExportError

PATIENCE = 120.0
"""Seconds that a consumer gets."""
FOLDER = "BILEVELPY_CONSUMERS"
"""Environment variable of a folder with consumers that cannot be installed beside this package:
``py312/bin/python`` (BLVPY), ``gams/bin/python`` (gamspy_base), ``node_modules`` (KaTeX)."""


class Missing(Exception):
    """The consumer is not installed; the text says what would install it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a consumer found: its objective in the sense of the file, and the values of columns by
    the names that they have there. ``is_global`` says whether it claims a global optimum.
    """

    solver: str
    status: str
    objective: float | None = None
    values: Mapping[str, float] | None = None
    is_global: bool = True


def need(package: str) -> None:
    """Raise :class:`Missing` where a package is not there."""
    if importlib.util.find_spec(package) is None:
        raise Missing(f"pip install {package}")


def scip(path: Path) -> Outcome:
    """An .lp, .mps or .nl file in SCIP."""
    need("pyscipopt")
    from pyscipopt import Model

    model = Model()
    model.hideOutput()
    model.setParam("limits/time", PATIENCE)
    # SCIP 10.0 loses optima of indicators, and of SOS1 sets beside nonlinear rows, by reductions
    # that keep some optima only.
    model.setParam("misc/allowstrongdualreds", False)
    model.setParam("misc/allowweakdualreds", False)
    try:
        model.readProblem(str(path))
    except OSError as error:
        raise ExportError(f"SCIP cannot read {path}: {error}") from error
    model.optimize()
    status = str(model.getStatus())
    if not model.getNSols():
        return Outcome("SCIP", status)
    values = {v.name: float(model.getVal(v)) for v in model.getVars(transformed=False)}
    beside = path.with_suffix(".col")
    if path.suffix == ".nl" and beside.is_file():
        # Names of a .nl file stand beside it; SCIP counts the columns.
        listed = beside.read_text().splitlines()
        values |= {n: values[f"x{k}"] for k, n in enumerate(listed) if f"x{k}" in values}
    return Outcome("SCIP", status, float(model.getObjVal()), values, status == "optimal")


def glpk(path: Path) -> Outcome:
    """A GMPL model in GLPK."""
    need("swiglpk")
    import swiglpk as glp

    glp.glp_term_out(0)
    problem, space = glp.glp_create_prob(), glp.glp_mpl_alloc_wksp()
    try:
        if glp.glp_mpl_read_model(space, str(path), 0) or glp.glp_mpl_generate(space, None):
            raise ExportError(f"GLPK cannot read {path}")
        glp.glp_mpl_build_prob(space, problem)
        options = glp.glp_iocp()
        glp.glp_init_iocp(options)
        options.presolve = 1
        options.tm_lim = int(1000 * PATIENCE)
        if glp.glp_intopt(problem, options) or glp.glp_mip_status(problem) != glp.GLP_OPT:
            return Outcome("GLPK", "no solution")
        values = {
            str(glp.glp_get_col_name(problem, j)): float(glp.glp_mip_col_val(problem, j))
            for j in range(1, glp.glp_get_num_cols(problem) + 1)
        }
        return Outcome("GLPK", "optimal", float(glp.glp_mip_obj_val(problem)), values)
    finally:
        glp.glp_mpl_free_wksp(space)
        glp.glp_delete_prob(problem)


def program(path: Path, solver: str, packages: Sequence[str], *arguments: str) -> Outcome:
    """A Python program that prints ``F = value`` and then the variables."""
    for package in packages:
        need(package)
    return _run([sys.executable], path, solver, arguments)


def blvpy(path: Path) -> Outcome:
    """A BLVPY program, in this Python where it is new enough, or in another one."""
    interpreter = beside("py312", "bin", "python")
    if importlib.util.find_spec("blvpy") is not None:
        command = [sys.executable]
    elif interpreter is not None:
        command = [str(interpreter)]
    else:
        raise Missing(f"Python 3.12 with: pip install blvpy ({FOLDER} names its folder)")
    # Each start takes seconds.
    return _run(command, path, "BLVPY with Ipopt", ("3",))


def _run(command: list[str], path: Path, solver: str, arguments: Sequence[str]) -> Outcome:
    # -P: a program that is called casadi.py must not stand in for the package it imports.
    line = [*command, "-P", str(path.resolve()), *arguments]
    return printed(_output(line, path.parent), solver)


def printed(output: str, solver: str) -> Outcome:
    """What a program printed: the solver's status, ``F = value``, and a line for each variable."""
    lines = [line for line in output.splitlines() if " = " in line]
    values: dict[str, float] = {}
    objective = None
    for line in lines:
        name, _, text = line.rpartition(" = ")
        try:
            number = float(text)
        except ValueError:
            continue
        if name == "F" and objective is None:
            objective = number
        else:
            values[name] = number
    said = next((line.strip() for line in output.splitlines() if " = " not in line), "")
    return Outcome(solver, said or "done", objective, values, is_global=False)


def gams(path: Path, option: str) -> Outcome:
    """A GAMS program; its status is read from ``res.txt``, since it exits with 0 in every case."""
    command = _gams()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.gms"
        shutil.copyfile(path, place)
        included = path.with_suffix(".inc")
        if included.is_file():
            shutil.copyfile(included, place.with_name(included.name))
        _output([command, place.name, "lo=0", option], place.parent)
        answer = place.with_name("res.txt")
        if not answer.is_file():
            raise ExportError(f"GAMS did not solve {path}: see its listing")
        words = answer.read_text().split()
    status, objective = words[0], float(words[1])
    # Optimal, locally optimal, and a solution in whole numbers.
    if status not in ("1", "2", "8"):
        return Outcome("GAMS", f"model status {status}")
    named = _gams_names(path)
    values = dict(zip(named, map(float, words[2:]), strict=True))
    return Outcome("GAMS", f"model status {status}", objective, values, is_global=False)


def _gams() -> str:
    found = shutil.which("gams")
    if found is not None:
        return found
    python = beside("gams", "bin", "python")
    if importlib.util.find_spec("gamspy_base") is not None:
        python = Path(sys.executable)
    if python is not None:
        code = "import gamspy_base; print(gamspy_base.__path__[0])"
        return str(Path(_output([str(python), "-c", code], Path.cwd()).strip()) / "gams")
    raise Missing("GAMS, or its demonstration: pip install gamspy; gamspy install solver reshop")


def _gams_names(path: Path) -> list[str]:
    """The variables in the order of the report; those of a large program stand in its include."""
    from bilevelpy.exporters.languages.gams import gams_names

    text = path.read_text()
    if "loop(c, put v.l(c)" not in text:
        return re.findall(r"^put (\w+)\.l:0:12 /;$", text, re.MULTILINE)
    columns = path.with_suffix(".inc").read_text().partition("set c(l) /\n")[2].partition("/;")[0]
    return list(gams_names().names(re.findall(r'^  \d+ "(.*)"$', columns, re.MULTILINE)))


def katex(*paths: Path) -> Outcome:
    """LaTeX through KaTeX, which refuses what it does not know."""
    node = shutil.which("node")
    modules = beside("node_modules")
    if node is None or modules is None or not (modules / "katex").is_dir():
        raise Missing(f"Node.js with: npm install katex ({FOLDER} names its folder)")
    code = (
        "const fs = require('fs');"
        f"const katex = require({str(modules / 'katex')!r});"
        "for (const path of process.argv.slice(1)) {"
        r"  const text = fs.readFileSync(path, 'utf8').replace(/^%.*\n/gm, '')"
        r"    .replace(/^\\\[|\\\]\s*$/g, '');"
        "  katex.renderToString(text, {throwOnError: true, strict: 'error', displayMode: true});"
        "}"
    )
    _output([node, "-e", code, *(str(p.resolve()) for p in paths)], Path.cwd())
    return Outcome("KaTeX", "accepted")


def beside(*parts: str) -> Path | None:
    """A path in the folder of consumers, where it is there."""
    folder = os.environ.get(FOLDER)
    place = Path(folder, *parts) if folder else None
    return place if place is not None and place.exists() else None


def _output(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, cwd=folder, check=False
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"{command[0]} did not end within {PATIENCE:g} s") from None
    except OSError as error:
        raise ExportError(f"cannot run {command[0]}: {error.strerror or error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        # The last line of Python has the error, that of Node its version.
        named = [line for line in lines if re.match(r"\w*Error\b", line)] or lines
        said = named[-1] if named else f"exit code {done.returncode}"
        raise ExportError(f"{Path(command[0]).name} does not take {Path(command[-1]).name}: {said}")
    return done.stdout
