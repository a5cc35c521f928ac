"""Some problems of `benchmarks/literature.json` by default settings, against the best known F."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")

FILE = Path(__file__).parents[3] / "benchmarks" / "literature.json"
RECORDS = {r["name"]: r for r in json.loads(FILE.read_text())}

# Those that take a fraction of a second each, of every kind.
QUICK = [
    "LiuHart1994",
    "VisweswaranEtal1996",
    "ShimizuAiyoshi1981Ex2",
    "MuuQuy2003Ex2",
    "Colson2002BIPA4",
    "mb_318",
    "NieWangYe2017Ex34",
    "lasso_follower",
    "concave_follower",
]


def model(record: dict) -> str:
    """The record in the language: every constraint ends in `<= 0` or `== 0`."""

    def level(part: str, letter: str, count: int) -> str:
        variables = "".join(f"var {letter}{k + 1}; " for k in range(count))
        rows = record[part]["constraints"]
        named = "".join(f"{part[0]}{k + 1}: {row}; " for k, row in enumerate(rows))
        return f"{variables}minimize {record[part]['objective']}; " + (
            f"subject to {named}" if rows else ""
        )

    upper = level("upper", "x", record["n_x"])
    return f"upper {{ {upper} }} lower f {{ {level('lower', 'y', record['n_y'])} }}"


@pytest.mark.parametrize("name", QUICK)
def test_default_settings_reach_the_best_known_value(name: str) -> None:
    record = RECORDS[name]
    result = bl.solve(bl.parse(model(record)), time_limit=60)
    best = record["best_known"]["F"]
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert abs(result.F - best) <= 1e-2 * (1 + abs(best))


def test_every_record_is_a_model_with_a_source() -> None:
    for record in RECORDS.values():
        assert record["source"]
        program = bl.parse(model(record)).program
        assert [len(v.variables) for v in program.levels] == [record["n_x"], record["n_y"]]
