"""Commands that need no solver (check, fmt, explain CODE, new), and what users get wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bilevelpy
from bilevelpy.cli.main import main
from bilevelpy.cli.templates import TEMPLATES

ROOT = Path(__file__).parents[2]
GOOD = """\
model toy;
upper {
  var x in [0, 1];
  minimize (y - 1)^2;
}
lower a {
  var y;
  minimize (y - x)^2;
}
"""
BAD = GOOD.replace("(y - x)^2", "(y - z)^2").replace("(y - 1)^2", "(y - q)^2")
UNFINISHED = GOOD.replace("(y - x)^2;", "(y - x)^2")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a folder of its own with three models in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    for name, text in (("good", GOOD), ("bad", BAD), ("unfinished", UNFINISHED)):
        Path(f"{name}.blv").write_text(text)


def test_version_and_help(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bilevelpy {bilevelpy.__version__}\n"
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("solve", "check", "explain", "compare", "fmt", "test", "new", "backends"):
        assert command in out


@pytest.mark.parametrize("unread", ["missing.blv", "empty", "binary.blv"])
def test_a_file_that_cannot_be_read_does_not_hide_the_others(unread: str, capsys: Capture) -> None:
    Path("empty").mkdir()
    Path("binary.blv").write_bytes(b"\x00\x01\xff")
    Path("messy.blv").write_text(GOOD.replace("  var", "var"))
    assert main(["check", unread, "bad.blv"]) == 2
    out, err = capsys.readouterr()
    assert "2 errors" in out
    assert unread in err
    assert main(["check", unread, "good.blv"]) == 2
    assert "1 model checked, no problems" in capsys.readouterr().err
    assert main(["fmt", unread, "messy.blv"]) == 2
    assert unread in capsys.readouterr().err
    assert Path("messy.blv").read_text() == GOOD


def test_check_exit_codes(capsys: Capture) -> None:
    assert main(["check", "good.blv"]) == 0
    assert main(["check", "bad.blv"]) == 1
    out = capsys.readouterr().out
    assert out.count("error[BLV0201]") == 2, "all independent errors at once"
    assert "2 errors" in out


def test_check_json_is_one_object(capsys: Capture) -> None:
    assert main(["check", "good.blv", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"diagnostics": []}
    assert main(["check", "bad.blv", "good.blv", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)["diagnostics"]
    keys = {
        "code",
        "severity",
        "file",
        "line",
        "column",
        "end_line",
        "end_column",
        "message",
        "hint",
    }
    assert len(found) == 2
    assert all(keys <= set(d) for d in found)
    assert (found[0]["file"], found[0]["line"], found[0]["column"]) == ("bad.blv", 4, 17)


def test_check_concise_and_github(capsys: Capture) -> None:
    assert main(["check", "bad.blv", "--format", "concise"]) == 1
    assert capsys.readouterr().out.startswith("bad.blv:4:17: error[BLV0201]: unknown name `q`")
    assert main(["check", "bad.blv", "--format", "github"]) == 1
    assert capsys.readouterr().out.startswith("::error file=bad.blv,line=4")


def test_check_fix(capsys: Capture) -> None:
    assert main(["check", "unfinished.blv"]) == 1
    assert main(["check", "--fix", "unfinished.blv"]) == 0
    assert Path("unfinished.blv").read_text() == GOOD
    assert "1 fix applied" in capsys.readouterr().err


def test_check_with_data(capsys: Capture) -> None:
    Path("p.blv").write_text(GOOD.replace("upper", "param c in [0, 1];\nupper", 1))
    assert main(["check", "p.blv"]) == 0, "without data only the text is checked"
    assert main(["check", "p.blv", "--param", "c=0.5"]) == 0
    assert main(["check", "p.blv", "--param", "c=2"]) == 1
    assert "BLV0405" in capsys.readouterr().out
    assert main(["check", "p.blv", "--param", "d=2"]) == 2
    assert "declares no data called `d`" in capsys.readouterr().err


def test_fmt(capsys: Capture) -> None:
    messy = GOOD.replace("minimize (y - 1)^2;", "minimize   (y-1) ^2 ;  # so")
    Path("messy.blv").write_text(messy)
    assert main(["fmt", "--check", "good.blv"]) == 0
    assert main(["fmt", "--check", "messy.blv"]) == 1
    assert main(["fmt", "--diff", "messy.blv"]) == 0
    assert "-  minimize   (y-1) ^2 ;" in capsys.readouterr().out
    assert Path("messy.blv").read_text() == messy
    assert main(["fmt", "messy.blv"]) == 0
    assert "minimize (y - 1)^2; # so" in Path("messy.blv").read_text().replace(";  #", "; #")
    assert main(["fmt", "--check", "messy.blv"]) == 0
    assert main(["fmt", "unfinished.blv"]) == 2
    assert Path("unfinished.blv").read_text() == UNFINISHED


def test_explain_a_code(capsys: Capture) -> None:
    assert main(["explain", "blv0101"]) == 0
    assert "BLV0101" in capsys.readouterr().out
    assert main(["explain", "BLV0101", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["severity"] == "error"
    assert main(["explain", "BLV0100"]) == 2
    assert "there is no code BLV0100 (did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("template", TEMPLATES)
def test_new_writes_a_correct_formatted_model(template: str, capsys: Capture) -> None:
    assert main(["new", "my_model", "--template", template]) == 0
    assert main(["check", "my_model.blv"]) == 0
    assert main(["fmt", "--check", "my_model.blv"]) == 0
    before = Path("my_model.blv").read_text()
    assert main(["new", "my_model"]) == 2, "never overwritten"
    assert Path("my_model.blv").read_text() == before


@pytest.mark.parametrize("name", ["3d", "a b", "../up/x-y", "upper", "model"])
def test_new_refuses_what_is_no_name(name: str, capsys: Capture) -> None:
    assert main(["new", name]) == 2
    assert not list(Path().glob("**/x-y*"))
    assert "name" in capsys.readouterr().err


def test_new_suggests_a_template(capsys: Capture) -> None:
    assert main(["new", "a", "--template", "tunning"]) == 2
    assert "did you mean `tuning`?" in capsys.readouterr().err


def test_exporters_are_listed_with_their_consumers(capsys: Capture) -> None:
    assert main(["exporters", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["exporters"]
    assert {"json", "mps-aux", "latex"} <= set(listed)
    assert all({"title", "suffix"} <= set(row) for row in listed.values())
    assert main(["exporters"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= len(listed)


def test_a_failing_extern_file_is_the_users(capsys: Capture) -> None:
    Path("code.py").write_text("1 / 0")
    assert main(["solve", "good.blv", "--extern", "f=code.py:f"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err
    Path("code.py").write_text("g = 1")
    assert main(["solve", "good.blv", "--extern", "f=code.py:f"]) == 2
    assert "defines no `f`" in capsys.readouterr().err


def test_a_broken_model_and_json(capsys: Capture) -> None:
    assert main(["solve", "bad.blv", "--json"]) == 2
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert content["error"] == "ModelError"
    assert [d["code"] for d in content["diagnostics"]] == ["BLV0201", "BLV0201"]
    assert "BLV0201" in captured.err


def test_internal_errors_are_two_lines(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def fail(source: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("bilevelpy.sema.check", fail)
    assert main(["check", "good.blv"]) == 2
    err = capsys.readouterr().err
    assert "internal error: ZeroDivisionError: a fault of ours" in err
    assert "Traceback" not in err
    monkeypatch.setenv("BILEVELPY_TRACEBACK", "1")
    assert main(["check", "good.blv"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m bilevelpy check bad.blv --format concise | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, env=environment
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("end", ["| true; exit ${PIPESTATUS[0]}", "1>&- 2>&-"])
def test_who_does_not_read_changes_no_exit_code(end: str) -> None:
    command = f"{sys.executable} -m bilevelpy solve good.blv {end}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0
    assert "internal error" not in done.stderr


def test_who_leaves_while_it_is_announced_what_is_done_costs_no_result(tmp_path: Path) -> None:
    """``solve ... 2>&1 | head``: the run ended at its first word, with exit code 0 and no file."""
    out = tmp_path / "result.json"
    command = f"{sys.executable} -m bilevelpy solve good.blv --out {out} 2>&1 >/dev/null | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", command], check=True, env=environment)
    assert bilevelpy.load_result(out).success


def test_what_solvers_print_themselves_is_no_result() -> None:
    code = """
import os, runpy, sys
import bilevelpy.numerics.driver.loop as loop
began = loop.Loop.begin
def noisy(self, *arguments):
    os.write(1, b"from C")
    return began(self, *arguments)
loop.Loop.begin = noisy
sys.argv[1:] = ["solve", "good.blv", "--json"]
runpy.run_module("bilevelpy", run_name="__main__")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "converged"
    assert "from C" in done.stderr


def test_a_file_that_cannot_be_read_hides_no_other(capsys: Capture) -> None:
    Path("binary.blv").write_bytes(b"\x00\xff")
    assert main(["check", "binary.blv", "bad.blv", "missing.blv", "--format", "concise"]) == 2
    out, err = capsys.readouterr()
    assert out.count("error[BLV0201]") == 2
    assert "binary.blv" in err
    assert "missing.blv" in err


def test_a_link_that_leads_nowhere_is_not_suggested_for_itself(capsys: Capture) -> None:
    Path("link.blv").symlink_to("nowhere.blv")
    assert main(["check", "link.blv"]) == 2
    err = capsys.readouterr().err
    assert "cannot read the model link.blv: No such file" in err
    assert "did you mean" not in err


def test_an_extern_file_that_exits_is_the_users(capsys: Capture) -> None:
    Path("code.py").write_text("raise SystemExit(3)")
    assert main(["solve", "good.blv", "--extern", "f=code.py:f"]) == 2
    assert "code.py failed: SystemExit: 3" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_fault_of_ours() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bilevelpy", "check", "bad.blv"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the output: no space left on the device\n"


@pytest.mark.parametrize("place", ["modules", "options", "command"])
def test_an_interruption_is_one_line_wherever_it_falls(place: str) -> None:
    """In a process of its own: inside of ``exec`` Python notes it, and would end by the signal."""
    raising = "exec('raise KeyboardInterrupt')"
    code = {
        "modules": f"""
import importlib.abc, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "bilevelpy.cli.main":
            {raising}
sys.meta_path.insert(0, Finder())
""",
        "options": f"""
import typer.main
def parse(*_, **__):
    {raising}
typer.core.TyperGroup.parse_args = parse
""",
        "command": f"""
import bilevelpy.cli.backends as module
def stop(*_, **__):
    {raising}
import bilevelpy.cli.guard, functools
module.backends = functools.wraps(module.backends)(stop)
""",
    }[place]
    code += "import runpy, sys\nsys.argv[1:] = ['backends']\n"
    code += "runpy.run_module('bilevelpy', run_name='__main__')\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
