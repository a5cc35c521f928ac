"""Fenced blocks of a page, and how each kind is run.

A comment right before a block says what is special about it: ``<!-- file: NAME -->`` writes it to
a file that later blocks use, ``<!-- exit: N -->`` is the exit code that its commands end with,
``<!-- fragment -->`` marks a part of a model, ``<!-- skip: WHY -->`` what cannot run in a test.
Commands of `bilevelpy` run here, one after the other; those of other programs in ``commands.py``.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bilevelpy
from bilevelpy.cli.main import main
from bilevelpy.diagnostics import Severity, Source
from bilevelpy.sema import check

_BLOCK = re.compile(
    r"(?P<notes>(?:<!-- [^>]*? -->\n+)*)^(?P<fence>`{3,})(?P<language>[a-z]*)[^\n]*\n"
    r"(?P<body>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block; ``notes`` are the comments before it."""

    language: str
    body: str
    notes: tuple[str, ...]
    line: int

    def said(self, word: str) -> str | None:
        """The value of ``word: value`` in the comments."""
        found = (re.fullmatch(rf"{word}: (.*)", note) for note in self.notes)
        return next((f[1] for f in found if f), None)


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text[: found.start("language")].count("\n") + 1
        notes = tuple(re.findall(r"<!-- (.*?) -->", found["notes"]))
        yield Block(found["language"], found["body"], notes, line)


def prepare(folder: Path, readme: Path) -> dict[str, Any]:
    """What every page may use: the model of the README with data, and the usual names."""
    (model,) = (b.body for b in blocks(readme) if b.language == "blv")
    (folder / "ridge.blv").write_text(model, encoding="utf-8")
    rng = np.random.default_rng(1)
    X, Xv = rng.normal(size=(60, 3)), rng.normal(size=(40, 3))
    w = np.array([1.0, 0.0, -1.0])
    y, yv = X @ w + rng.normal(size=60), Xv @ w + rng.normal(size=40)
    data = {"X": X, "y": y, "Xv": Xv, "yv": yv}
    np.savez(folder / "data.npz", **data)  # type: ignore[arg-type]
    return {"bl": bilevelpy, "np": np, "data": data}


def run(page: Path, folder: Path, given: dict[str, Any]) -> int:
    """Run the blocks of a page in ``folder`` (the current one); returns how many ran."""
    names: dict[str, Any] = {"__name__": page.stem, **given}
    ran = 0
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.said("skip"):
            continue
        target = block.said("file")
        if target is not None:
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            (folder / target).write_text(block.body, encoding="utf-8")
        if block.language == "blv" and "fragment" not in block.notes:
            source = Source(target or "page.blv", block.body)
            found = [d for d in check(source).diagnostics if d.severity is Severity.ERROR]
            assert not found, f"{where}: {found[0].message}"
        elif block.language == "python" and target is None:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile("\n" * block.line + block.body, str(page), "exec"), names)
            names["printed"] = printed.getvalue()
        elif block.language == "console":
            _commands(block, where)
        elif block.language == "json":
            json.loads(block.body)
        elif block.language == "toml":
            tomllib.loads(block.body)
        else:
            continue
        ran += 1
    return ran


def lines(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with what it prints by the page."""
    if block.language == "sh":
        for line in block.body.splitlines():
            command = line.partition("#")[0].strip()
            if command:
                yield command, ""
    elif block.language == "console":
        for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
            command, _, output = part.replace("\\\n", " ").partition("\n")
            yield shlex.join(shlex.split(command, comments=True)), output


def _commands(block: Block, where: str) -> None:
    """Lines `$ bilevelpy ...`, each followed by (parts of) what it prints; `...` is any text."""
    wanted = int(block.said("exit") or 0)
    for command, output in lines(block):
        program, *arguments = shlex.split(command)
        if program != "bilevelpy":
            continue
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            code = main(arguments)
        printed = out.getvalue() + err.getvalue()
        assert code == wanted, f"{where}: {command}: exit code {code}\n{printed}"
        position = 0
        squeezed = " ".join(printed.split())
        for line in output.splitlines():
            for piece in filter(None, (p.strip() for p in line.split("..."))):
                piece = " ".join(piece.split())
                at = squeezed.find(piece, position)
                assert at >= 0, f"{where}: `{piece}` is not what is printed:\n{printed}"
                position = at + len(piece)
