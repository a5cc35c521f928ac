"""Every code block of the README runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bilevelpy.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model of the README and data for it."""
    (model,) = blocks("blv")
    (tmp_path / "ridge.blv").write_text(model)
    rng = np.random.default_rng(1)
    X, Xv = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    w = np.array([1.0, 0.0, -1.0])
    y, yv = X @ w + rng.normal(size=30), Xv @ w + rng.normal(size=20)
    np.savez(tmp_path / "data.npz", X=X, y=y, Xv=Xv, yv=yv)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_model_is_short_and_formatted(folder: Path) -> None:
    (model,) = blocks("blv")
    assert len(model.splitlines()) <= 15
    assert main(["fmt", "--check", "ridge.blv"]) == 0


def test_the_python_call(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("converged")


def test_the_command_line(folder: Path) -> None:
    (lines,) = blocks("console")
    for line in lines.splitlines():
        program, *arguments = line.removeprefix("$ ").split()
        assert program == "bilevelpy"
        assert main(arguments) == 0, line
    assert (folder / "result.json").exists()
    assert (folder / "run.png").exists()


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z-]+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_option_of_the_command_line_is_documented() -> None:
    import typer

    from bilevelpy.cli.main import app

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"bilevelpy {name}" in page
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert option in page, f"{name} {option}"
