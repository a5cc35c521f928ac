"""Solve a collection of bilevel problems with default settings and judge every answer.

    python benchmarks/bolib.py FOLDER [NAME...] [--seconds 20] [--records FILE] [--table PAGE]

FOLDER holds a ``*.json`` with the records, ``to_blv.py`` (writes a record as a model) and
``judge.py`` (judges a point independently of any solver). ``--records`` takes them from another
file, such as ``benchmarks/literature.json``: further problems of the literature and of the same
kind, with values as published or, where none is known, as found here. With ``--table`` the outcomes
are written as Markdown.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import bilevelpy as bl

ACCEPTED = ("matches", "better")


@dataclass(frozen=True)
class Row:
    name: str
    kind: str
    backend: str
    status: str
    certificate: str
    verdict: str
    F: float
    best: float | None
    seconds: float
    cpu: float

    @property
    def accepted(self) -> bool:
        return self.verdict in ACCEPTED or self.verdict.startswith("right")

    @property
    def refuted(self) -> bool:
        """Whether the judge contradicts a certificate."""
        judged = self.verdict.startswith(("infeasible", "not lower-optimal"))
        worse = self.certificate == "global" and self.verdict.startswith(("worse", "wrong"))
        return worse or (judged and self.status == "converged")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected(record: dict[str, Any]) -> str:
    """The kind of answer that is right: "point", or the status to report."""
    status = str((record.get("best_known") or {}).get("status", ""))
    return status if status in ("infeasible", "no optimum") else "point"


def solve(record: dict[str, Any], text: str, seconds: float, judge: ModuleType) -> Row:
    best = (record.get("best_known") or {}).get("F")
    began, busy = time.perf_counter(), time.process_time()
    try:
        result = bl.solve(bl.parse(text), time_limit=seconds, progress=False)
    except bl.BilevelError as error:
        first = str(error).strip().splitlines()
        word = "refused: " + next((x.strip(" |=") for x in first if "exact" in x), first[0])[:70]
        spent = (time.perf_counter() - began, time.process_time() - busy)
        return Row(record["name"], record["class"], "-", "-", "-", word, math.nan, best, *spent)
    except Exception as error:  # a fault of the package: the table shows it
        spent = (time.perf_counter() - began, time.process_time() - busy)
        word = f"error: {type(error).__name__}: {error}"[:70]
        return Row(record["name"], record["class"], "-", "-", "-", word, math.nan, best, *spent)
    spent = (time.perf_counter() - began, time.process_time() - busy)
    kind = result.certificate.kind if result.certificate else "-"
    F = result.F
    want = expected(record)
    if want != "point":
        right = result.status == want or (want == "no optimum" and not result.success)
        verdict = f"right: {want}" if right else f"wrong: {want} is expected"
    elif not np.isfinite(F):
        verdict = "no point"
    else:
        x = [float(result[f"x{i + 1}"]) for i in range(record["n_x"])]
        y = [float(result[f"y{i + 1}"]) for i in range(record["n_y"])]
        verdict = judge.judge(record, x, y)["verdict"]
    return Row(
        record["name"], record["class"], result.backend, str(result.status), kind, verdict, F, best,
        *spent,
    )  # fmt: skip


def table(rows: list[Row], seconds: float, records: str = "", page: str = "PAGE") -> str:
    what = f"`{records}`" if records else "BOLIB, BASBLib, tests of BilevelJuMP"
    option = f" --records {records}" if records else ""
    command = f"python benchmarks/bolib.py FOLDER{option} --table {page}"
    counts = Counter("accepted" if r.accepted else r.verdict.split(":")[0] for r in rows)
    lines = [
        f"# {'Further problems' if records else 'Problems'} of the bilevel literature",
        "",
        f"{len(rows)} problems ({what}), default settings, "
        f"{seconds:g} s each, made by `{command}`. "
        "A judge that shares no code with the solvers accepts an answer that is feasible to 1e-4, "
        "lower-optimal to 1e-3 and as good as the best known F to 1e-2 (relative).",
        "",
        ", ".join(f"{v} {k}" for k, v in counts.most_common())
        + f"; {sum(r.certificate == 'global' for r in rows)} with a global certificate, "
        f"{sum(r.refuted for r in rows)} certificates refuted.",
        "",
        "| problem | class | backend | status | certificate | judge | F | best known | s | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        best = "-" if r.best is None else f"{r.best:.6g}"
        lines.append(
            f"| {r.name} | {r.kind} | {r.backend} | {r.status} | {r.certificate} | {r.verdict} | "
            f"{r.F:.6g} | {best} | {r.seconds:.2f} | {r.cpu:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--records", type=Path)
    parser.add_argument("--table", type=Path)
    given = parser.parse_intermixed_args()
    chosen = given.records or next(given.folder.glob("*.json"))
    records = json.loads(chosen.read_text())
    judge, to_blv = load(given.folder / "judge.py"), load(given.folder / "to_blv.py")
    rows = []
    for record in records:
        if given.names and record["name"] not in given.names:
            continue
        row = solve(record, to_blv.model(record), given.seconds, judge)
        rows.append(row)
        mark = "ok " if row.accepted else "BAD" if row.refuted else "-  "
        print(mark, row.name, row.backend, row.status, row.certificate, row.verdict,
              f"{row.F:.6g}", row.best, f"{row.seconds:.2f}", flush=True)  # fmt: skip
    source = "" if given.records is None else str(given.records)
    page = table(rows, given.seconds, source, str(given.table or "PAGE"))
    print(page.splitlines()[4])
    if given.table is not None:
        given.table.write_text(page)


if __name__ == "__main__":
    main()
