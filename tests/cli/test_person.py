"""A person's path: write a model, mistype, mend, bind a table, solve, plot, report, export. And
what the program needs for it: a light start, plain output, messages that name what is missing.
"""

from __future__ import annotations

import builtins
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bilevelpy.cli.main import main

ROOT = Path(__file__).parents[2]
LIBRARIES = {
    *("torch", "cvxpy", "sympy", "scipy", "numpy", "pandas", "matplotlib", "rich", "lark"),
    *("pygls", "lsprotocol", "IPython", "pygments", "latex2mathml", "networkx"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_persons_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A model to start from runs as it is.
    assert main(["new", "market", "--template", "tuning"]) == 0
    assert main(["solve", "market.blv", "--quiet"]) == 0

    # A table and a model of one's own, with a mistake in it.
    (folder / "roads.csv").write_text("ROAD,free,slope\nshort,1,0.2\nwide,2,0.05\n")
    model = folder / "roads.blv"
    model.write_text(
        "model roads;\nset ROAD;\nparam free[ROAD], slope[ROAD];\nparam demand = 10;\n"
        "upper {\n  var toll[ROAD] in [0, 5] start 1;\n"
        "  minimize sum(share[r] * (free[r] + slope[r] * demand * share[r]) for r in ROAD)\n"
        "      + 0.01 * sumsq(tol);\n}\n"
        "lower drivers {\n  var share[ROAD] in simplex;\n"
        "  minimize sum((free[r] + toll[r]) * share[r] + slope[r] * demand * share[r]^2 / 2\n"
        "      for r in ROAD);\n}\n"
    )
    capsys.readouterr()
    assert main(["check", "roads.blv"]) == 1
    message = capsys.readouterr().out
    assert "error[BLV0201]: unknown name `tol`" in message
    assert "did you mean `toll`?" in message
    assert " --> roads.blv:8:22" in message

    # The fix that the message offers is applied by the program.
    assert main(["check", "roads.blv", "--fix"]) == 0
    assert "sumsq(toll)" in model.read_text()

    # Data that does not fit is an error with the name and the row.
    bad = folder / "bad.csv"
    bad.write_text("ROAD,free,slope\nshort,1,0.2\nwide,2,none\n")
    capsys.readouterr()
    assert main(["solve", "roads.blv", "--data", "bad.csv"]) == 2
    assert re.search(r"error\[BLV04\d\d\].*slope", capsys.readouterr().err)

    # Solve, keep, plot, report, export.
    arguments = ["roads.blv", "--data", "roads.csv"]
    saved = ["--out", "answer.json", "--plot", "toll.svg", "--plot-kind", "landscape"]
    assert main(["solve", *arguments, *saved]) == 0
    printed = capsys.readouterr().out
    assert "converged" in printed
    # Numbers bear the names of the table.
    assert re.search(r"toll\[2\] +short = \S+ +wide = \S+", printed)
    assert main(["export", *arguments, "--to", "latex", "--out", "roads.tex"]) == 0
    for name in ("answer.json", "toll.svg", "roads.tex"):
        assert (folder / name).stat().st_size > 500
    pytest.importorskip("latex2mathml", reason="reports need the extra `report`")
    assert main(["report", *arguments, "--out", "roads.html"]) == 0
    assert (folder / "roads.html").stat().st_size > 10_000
    assert "short = " in (folder / "roads.html").read_text()


class Clock:
    """Runs commands as somebody types them, in a checkout, and keeps what each takes."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.seconds: dict[str, float] = {}

    def run(self, what: str, *command: str, code: int = 0) -> str:
        """The output of a command that must end with ``code``; `bilevelpy` is that of here."""
        known = [sys.executable, "-m", "bilevelpy"] if command[0] == "bilevelpy" else [command[0]]
        environment = {**os.environ, "PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1"}
        began = time.perf_counter()
        done = subprocess.run(
            [*known, *command[1:]], cwd=self.checkout, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        self.seconds[what] = time.perf_counter() - began
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_from_a_checkout_to_an_export(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The first ten minutes, with a clock. What `make` would install is the present environment."""
    checkout = tmp_path / "bilevelpy"
    left_out = ("_build", "node_modules", "__pycache__", "*-output", "*_cache", ".venv", ".git",
                ".consumers")  # fmt: skip
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*left_out))
    clock = Clock(checkout)

    shown = clock.run(
        "make demo", "make", "demo", "--old-file=.venv/.stamp-demo", f"PY={sys.executable}"
    )
    assert "breast_cancer  converged" in shown
    assert (checkout / "demo-output" / "breast_cancer.png").is_file()

    # A model of the repository becomes one's own: a slip, its message, its mending.
    model = checkout / "models" / "congestion_tolls.blv"
    text = model.read_text()
    model.write_text(text.replace("share[ROAD] in simplex", "share[ROADS] in simplex"))
    shown = clock.run("a slip", "bilevelpy", "check", str(model), code=1)
    assert "did you mean `ROAD`?" in shown
    # The table takes the place of the numbers in the text, and of what was expected of them.
    own = re.sub(r"^(set ROAD|param (?:free|slope)\[ROAD\]) = .*;$", r"\1;", text, flags=re.M)
    model.write_text(own.partition("expect")[0])
    assert "no problems" in clock.run("its mending", "bilevelpy", "check", str(model))

    # Three roads of one's own.
    table = checkout / "roads.csv"
    table.write_text("ROAD,free,slope\nshort,1,0.2\nwide,2,0.05\nferry,4,0.01\n")
    given = (str(model), "--data", str(table))
    shown = clock.run("solve, plot", "bilevelpy", "solve", *given, "--plot", "run.png")
    assert "converged" in shown
    assert re.search(r"toll\[3\] +short = \S+ +wide = \S+ +ferry = \S+", shown)
    assert (checkout / "run.png").read_bytes().startswith(b"\x89PNG")
    clock.run("export", "bilevelpy", "export", *given, "--to", "latex", "--out", "roads.tex")
    assert "\\mathrm{toll}" in (checkout / "roads.tex").read_text()

    for what, seconds in clock.seconds.items():
        record_property(what, round(seconds, 1))
        print(f"{what:14}{seconds:6.1f} s")


def loaded_by(arguments: list[str]) -> set[str]:
    """Top-level modules in a fresh process after a command."""
    script = (
        "import sys\nfrom bilevelpy.cli.main import main\n"
        f"main({arguments!r})\n"
        "print(*{m.split('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["report", "--help"]])
def test_help_loads_no_library(arguments: list[str]) -> None:
    assert not loaded_by(arguments) & LIBRARIES


def test_a_check_loads_no_server_and_no_plots() -> None:
    assert not loaded_by(["check", "models/box_kink.blv"]) & (LIBRARIES - {"lark"})


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [
        ("pygls", ["lsp"], "lsp"),
        ("matplotlib", ["solve", "models/box_kink.blv", "--plot", "p.png"], "plot"),
    ],
)
def test_a_missing_library_names_its_extra(
    library: str,
    arguments: list[str],
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
) -> None:
    (folder / "models").symlink_to(ROOT / "models")
    for name in [m for m in sys.modules if m.split(".")[0] in (library, "bilevelpy.lsp")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [m for m in sys.modules if m.startswith("bilevelpy.lsp")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == library:
            raise ImportError(f"No module named {library!r}", name=library)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(arguments) == 2
    assert f"install the extra `{extra}`" in capsys.readouterr().err


def test_output_is_plain_and_fits_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    model = str(ROOT / "models" / "box_kink.blv")
    assert main(["explain", model]) == 0
    assert main(["solve", model, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert all(line == line.rstrip() for line in printed.splitlines())


def test_the_shell_completes_commands() -> None:
    program = Path(sys.executable).parent / "bilevelpy"
    if not program.exists():
        pytest.skip("the package is not installed in this environment")
    completion = {
        "_BILEVELPY_COMPLETE": "complete_bash",
        "COMP_WORDS": "bilevelpy re",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [program], capture_output=True, text=True, env=os.environ | completion, check=False
    )
    assert "report" in done.stdout.split()


@pytest.mark.parametrize(("variable", "plain"), [({}, False), ({"NO_COLOR": "1"}, True)])
def test_a_terminal_gets_colour_unless_it_wants_none(variable: dict[str, str], plain: bool) -> None:
    """The command on a terminal of its own (a pseudo-terminal of the system)."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "80", **variable}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bilevelpy", "explain", "models/box_kink.blv"],
        stdin=follower, stdout=follower, stderr=follower, env=environment, cwd=ROOT,
    )  # fmt: skip
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the end, on Linux
            break
        if not part:
            break
        written += part
    os.close(leader)
    assert process.wait() == 0
    assert (b"\x1b[" not in written) is plain
    text = re.sub(r"\x1b\[[0-9;]*m", "", written.decode())
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("shell", "variables"),
    [
        ("bash", {"COMP_WORDS": "bilevelpy so", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "bilevelpy so"}),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "bilevelpy so", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        ),
    ],
)
def test_every_shell_gets_completions(shell: str, variables: dict[str, str]) -> None:
    program = Path(sys.executable).parent / "bilevelpy"
    if not program.exists():
        pytest.skip("the package is not installed in this environment")
    asked = {"_BILEVELPY_COMPLETE": f"complete_{shell}", **variables}
    done = subprocess.run(
        [program], capture_output=True, text=True, env=os.environ | asked, check=False
    )
    assert "solve" in done.stdout
    assert "compare" not in done.stdout
