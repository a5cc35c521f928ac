"""Checkpoints hold what a run goes on from; a file with anything else in it is refused."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends import registry
from bilevelpy.records import checkpoint
from bilevelpy.result import Status
from bilevelpy.system import storage
from tests.unit.dispatcher.test_escalation import QUADRATIC, Broken, with_first

MODEL = """\
model kept;
dim n = 3;
param t[n] = [1, 2, 3];
upper { var x[n] in [-9, 9] start 0; minimize sum((exp(w / 3) - exp(2 * t / 3))^2); }
lower g { var w[n]; minimize sum((w - x)^2); }
report held_out = sum((w - t)^2);
report none = sum(w - w) / sum(w - w);
"""


@pytest.fixture
def saved(tmp_path: Path) -> tuple[bl.Model, Path]:
    """A model, and the checkpoint of two iterations."""
    model, path = bl.parse(MODEL), tmp_path / "run.ckpt"
    bl.solve(model, max_iter=2, stop_by="min held_out", watch=["min none"], checkpoint=path)
    return model, path


def test_a_run_comes_back_as_it_was(saved: tuple[bl.Model, Path]) -> None:
    """A report that is no number too: JSON has no NaN."""
    model, path = saved
    found = checkpoint.read(path, model.bound)
    assert found is not None
    assert [record.iteration for record in found.history] == [0, 1, 2]
    assert all(math.isnan(record.reports["none"]) for record in found.history)
    assert found.best is not None
    assert found.best.by == "min held_out"
    result = bl.solve(model, stop_by="min held_out", watch=["min none"], checkpoint=path,
                      resume=True)  # fmt: skip
    assert [record.iteration for record in result.history] == list(range(len(result.history)))


def _first(meta: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    return {"history": [{**meta["history"][0], **changed}]}


@pytest.mark.parametrize(
    "change",
    [
        lambda a, m: ({"x": a["x"][:1]}, {}),
        lambda a, m: ({"x": a["x"] * math.nan}, {}),
        lambda a, m: ({"y": np.array(["a", "b", "c"])}, {}),
        lambda a, m: ({"best_x": a["x"][:1]}, {}),
        lambda a, m: ({"best_y": a["y"] + math.inf}, {}),
        lambda a, m: ({}, {"best": {**m["best"], "by": "min nothing"}}),
        lambda a, m: ({}, {"best": 3}),
        lambda a, m: ({}, {"history": ["a"]}),
        lambda a, m: ({}, _first(m, iteration="a")),
        lambda a, m: ({}, _first(m, counts={"F": "a"})),
        lambda a, m: ({}, _first(m, reports="a")),
        lambda a, m: ({}, _first(m, more=1)),
    ],
)
def test_what_no_run_has_written_is_refused(
    saved: tuple[bl.Model, Path], change: Callable[..., tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    model, path = saved
    arrays, meta = storage.read_npz(path)
    points, told = change(arrays, meta)
    storage.write_npz(path, {**arrays, **points}, {**meta, **told})
    with pytest.raises(bl.UsageError, match=r"cannot resume from .* damaged"):
        bl.solve(model, stop_by="min held_out", checkpoint=path, resume=True)


# --- going on -------------------------------------------------------------------------------------

# Of two valleys the run falls into the one beside its start, and finds the other by looking around.
PENALTIES = """\
dim n, m, p;
param X[n, p], y[n], Xv[m, p], yv[m];
upper { var lam[p] in [-8, 8] start 0; minimize mean((Xv @ w - yv)^2); }
lower fit { var w[p]; minimize mean(log(1 + exp(-y * (X @ w)))) + sum(exp(lam) * w^2); }
"""
HILLS = """\
upper { var x[2] in [-4, 4] start 0;
        minimize sum(y^2) / 20 + sum(cos(3 * y)) + 0.3 * sum(sin(7 * x)); }
lower g { var y[2] in [-5, 5]; minimize sumsq(y - x); subject to room: sum(y) <= 5; }
"""
TWO = """\
upper { var x start -1; minimize (y + 1)^2 * (y - 3)^2 / 10 - x; }
lower copy { var y; minimize (y - x)^2; }
"""


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """All files that are written, at every iteration."""
    made: list[Path] = []
    write = checkpoint.Checkpoint.write

    def copied(self: checkpoint.Checkpoint) -> bool:
        if not write(self):
            return False
        made.append(tmp_path / f"{len(made)}.ckpt")
        shutil.copy(self.path, made[-1])
        return True

    monkeypatch.setattr(checkpoint.Checkpoint, "write", copied)
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", math.inf)
    return made


@pytest.mark.parametrize(("text", "asked"), [(MODEL, {}), (TWO, {}), (MODEL, {"dtype": "float32"})])
def test_from_every_moment_the_same_course(
    text: str, asked: dict[str, Any], every: list[Path], tmp_path: Path
) -> None:
    """Looking around after a local end and the run from there, and a beginning in single precision,
    included.
    """
    path = tmp_path / "run.ckpt"
    whole = bl.solve(bl.parse(text), checkpoint=path, **asked)
    moments = list(every)
    assert len(moments) > whole.iterations
    if text == TWO:
        assert any("elsewhere" in said for said in whole.warnings)
    for moment in moments:
        again = bl.solve(bl.parse(text), checkpoint=moment, resume=True, **asked)
        assert np.array_equal(again["x"], whole["x"])
        assert (again.F, again.status, again.message) == (whole.F, whole.status, whole.message)
        assert [r.F for r in again.history] == [r.F for r in whole.history]
        assert [r.iteration for r in again.history] == [r.iteration for r in whole.history]
        assert again.warnings == whole.warnings
        assert again.decision.to_json() == whole.decision.to_json()


@pytest.mark.parametrize("form", ["reduced", "conditions"])
def test_starts_that_are_behind_are_not_made_again(
    form: str, every: list[Path], tmp_path: Path
) -> None:
    """Many starts among many hills: from every moment the same ones follow."""
    pytest.importorskip("casadi")
    asked: dict[str, Any] = {"backend": "nlp", "seed": 3, "options": {"form": form, "starts": 6}}
    whole = bl.solve(bl.parse(HILLS), checkpoint=tmp_path / "run.ckpt", **asked)
    assert whole.iterations >= 3
    moments, better = list(every), list(dict.fromkeys(r.F for r in whole.history))
    for moment in (*moments[:-1:3], *moments[-2:]):
        again = bl.solve(bl.parse(HILLS), checkpoint=moment, resume=True, **asked)
        assert np.array_equal(again["x"], whole["x"])
        assert (again.F, again.message) == (whole.F, whole.message)
        # The end of a run is a record of its own, whatever it adds.
        assert list(dict.fromkeys(r.F for r in again.history)) == better


SMALL = """\
upper { var x[2] in [-400, 400] start 50; minimize sum((x / 100 - 1)^2) + sumsq(y); }
lower g { var y[2] in [-1, 2]; minimize sum((y - x / 50)^2) + 0.1 * sum(y)^2; ROWS }
"""


@pytest.mark.parametrize(
    ("backend", "rows", "options"),
    [
        ("bome", "", {"first": 20}),
        ("bvfsm", "", {"smallest": 0.1}),
        ("lvhba", "subject to room: sum(y) <= 1;", {"first": 20, "stride": 10}),
    ],
)
def test_penalties_that_follow_a_loop_go_on(
    backend: str, rows: str, options: dict[str, Any], every: list[Path], tmp_path: Path
) -> None:
    """Before the penalty, at its beginning and within; x in other units than y."""
    text = SMALL.replace("ROWS", rows)
    asked: dict[str, Any] = {
        "backend": backend, "options": options, "verify": False, "max_iter": 20,
    }  # fmt: skip
    whole = bl.solve(bl.parse(text), checkpoint=tmp_path / "run.ckpt", **asked)
    moments = list(every)
    trees = [storage.read_npz(m)[1].get("carried", {}).get("tree", {}) for m in moments]
    first = ["later" in tree for tree in trees].index(True)
    assert 0 < first < len(moments) - 3
    for k in (first - 1, first, len(moments) - 3):
        again = bl.solve(bl.parse(text), checkpoint=moments[k], resume=True, **asked)
        assert np.array_equal(again["x"], whole["x"])
        assert [r.F for r in again.history] == [r.F for r in whole.history]
        assert again.warnings == whole.warnings


def test_a_run_ended_by_a_report_from_every_moment(every: list[Path], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"stop_by": "min held_out", "patience": 3}
    whole = bl.solve(bl.parse(MODEL), checkpoint=tmp_path / "run.ckpt", **asked)
    assert "which is returned" in whole.message
    for moment in list(every):
        again = bl.solve(bl.parse(MODEL), checkpoint=moment, resume=True, **asked)
        assert np.array_equal(again["x"], whole["x"])
        assert again.message == whole.message


def _penalties() -> bl.Model:
    """A run that weighs what it has spent: second derivatives have to be worth their price."""
    rng = np.random.default_rng(0)
    X, Xv = rng.normal(size=(60, 8)), rng.normal(size=(40, 8))
    y, yv = np.sign(X[:, 0] + X[:, 1]), np.sign(Xv[:, 0] + Xv[:, 1])
    return bl.parse(PENALTIES, X=X, y=y, Xv=Xv, yv=yv)


@pytest.mark.parametrize(("made", "cut"), [(lambda: bl.parse(MODEL), 1), (_penalties, 3)])
def test_limits_are_no_ends(made: Callable[[], bl.Model], cut: int, tmp_path: Path) -> None:
    """Cut after some iterations, certified, and given more, again and again: as in one go."""
    path, whole = tmp_path / "run.ckpt", bl.solve(made())
    for _ in range(whole.iterations + 1):
        part = bl.solve(made(), max_iter=cut, checkpoint=path, resume=True)
        if part.status != "iteration_limit":
            break
    assert part.status == "converged"
    for name, value in whole.upper.items():
        assert np.array_equal(part[name], value)
    assert part.iterations == whole.iterations
    assert [r.F for r in part.history] == [r.F for r in whole.history]
    done = bl.solve(made(), checkpoint=path, resume=True)
    assert done.F == part.F
    assert done.time == part.time, "what is done is read, not solved again"


def test_ctrl_c_in_the_middle_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has the iteration before, whole."""
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", math.inf)
    path, whole = tmp_path / "run.ckpt", bl.solve(bl.parse(MODEL))
    backend = registry.get(whole.backend)
    step, count = backend.step, 0

    def pressed(oracle: Any, state: Any, options: Any) -> Any:
        nonlocal count
        count += 1
        found = step(oracle, state, options)
        if count == 3:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(backend, "step", pressed)
        first = bl.solve(bl.parse(MODEL), checkpoint=path)
    assert first.status == "interrupted"
    again = bl.solve(bl.parse(MODEL), checkpoint=path, resume=True)
    assert np.array_equal(again["x"], whole["x"])
    assert [r.F for r in again.history] == [r.F for r in whole.history]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"backend": "aid"}, "other `backend`"),
        ({"tol": 1e-7}, "other `tol`"),
        ({"seed": 3}, "other `seed`"),
        ({"start": {"x": 0.5}}, "other `start`"),
        ({"backend": "direct", "options": {"lower_tol": 1e-9}}, "`backend`, `options`"),
    ],
)
def test_other_options_go_on_from_the_point_alone(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path, whole = tmp_path / "run.ckpt", bl.solve(bl.parse(MODEL))
    first = bl.solve(bl.parse(MODEL), max_iter=3, checkpoint=path)
    again = bl.solve(bl.parse(MODEL), checkpoint=path, resume=True, **changed)
    assert again.status == "converged"
    assert pytest.approx(whole.F, rel=1e-6) == again.F
    (said,) = [w for w in again.warnings if "point of the checkpoint alone" in w]
    assert says in said
    assert [r.F for r in again.history[:4]] == [r.F for r in first.history]
    assert [r.iteration for r in again.history] == list(range(len(again.history)))


def test_files_of_the_first_format_are_read(saved: tuple[bl.Model, Path]) -> None:
    model, path = saved
    arrays, meta = storage.read_npz(path)
    points = {name: arrays[name] for name in ("x", "y", "best_x", "best_y")}
    old = ("model_hash", "data_hash", "history", "best")
    storage.write_npz(path, points, {"format": 1, **{name: meta[name] for name in old}})
    result = bl.solve(model, checkpoint=path, resume=True)
    assert result.success
    assert any("alone: it is of an earlier version" in w for w in result.warnings)
    assert [r.iteration for r in result.history[:3]] == [0, 1, 2]


def _carried(meta: Mapping[str, Any], **state: Any) -> dict[str, Any]:
    tree = meta["carried"]["tree"]
    return {"carried": {**meta["carried"], "tree": {**tree, "state": {**tree["state"], **state}}}}


@pytest.mark.parametrize(
    "change",
    [
        lambda a, m: ({"carried_float64": a["carried_float64"][:-1]}, {}),
        lambda a, m: ({"carried_float64": a["carried_float64"] * math.nan}, {}),
        lambda a, m: ({}, {"carried": 3}),
        lambda a, m: ({}, {"carried": {**m["carried"], "tree": {}}}),
        lambda a, m: ({}, _carried(m, **{"class": "os:system"})),
        lambda a, m: ({}, _carried(m, **{"with": {"point": 1}})),
        lambda a, m: ({}, _carried(m, **{"with": {"inner": {"vector": 0}}})),
        lambda a, m: ({}, {"done": 3}),
        lambda a, m: ({}, {"done": [{"model": "kept"}]}),
    ],
)
def test_a_damaged_state_is_refused_and_left_alone(
    change: Callable[..., tuple[dict[str, Any], dict[str, Any]]], tmp_path: Path
) -> None:
    model, path = bl.parse(MODEL), tmp_path / "run.ckpt"
    bl.solve(model, max_iter=2, checkpoint=path)
    arrays, meta = storage.read_npz(path)
    points, told = change(arrays, meta)
    storage.write_npz(path, {**arrays, **points}, {**meta, **told})
    before = path.read_bytes()
    with pytest.raises(bl.UsageError, match=r"cannot resume from .* damaged"):
        bl.solve(model, checkpoint=path, resume=True)
    assert path.read_bytes() == before


def test_writing_takes_a_small_part_of_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The longer a write takes, the longer it is until the next one."""
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    now, writes = 0.0, list[float]()
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def slow(*content: Any) -> None:
        nonlocal now
        now += 1.0
        writes.append(now)

    monkeypatch.setattr(storage, "write_npz", slow)
    keeper = checkpoint.Checkpoint(tmp_path / "run.ckpt", bl.parse(MODEL).bound, {})
    for k in range(100):
        now += 1.0
        keeper.observe(bl.Record(k, now, 0.0, 0.0, 0.0, 0.0, {}), np.zeros(3), np.zeros(3))
    assert len(writes) == 5


def test_limits_go_on_counting_where_they_have_not_ended_the_run(
    every: list[Path], tmp_path: Path
) -> None:
    """A run of four iterations that was killed after some of them has the others left."""
    path = tmp_path / "run.ckpt"
    whole = bl.solve(bl.parse(MODEL), max_iter=4, checkpoint=path)
    assert whole.status == "iteration_limit"
    for moment in list(every)[:-1]:
        again = bl.solve(bl.parse(MODEL), max_iter=4, checkpoint=moment, resume=True)
        assert again.iterations == 4
        assert again.message == whole.message
        assert np.array_equal(again["x"], whole["x"])
    more = bl.solve(bl.parse(MODEL), max_iter=2, checkpoint=path, resume=True)
    assert more.iterations == 6


def test_a_time_limit_in_the_middle_of_a_step(tmp_path: Path) -> None:
    """The step before is kept whole, and the next run has its time anew."""
    text, path = MODEL, tmp_path / "run.ckpt"
    whole = bl.solve(bl.parse(text))
    first = bl.solve(bl.parse(text), checkpoint=path, max_iter=3)
    assert first.status == "iteration_limit"
    for _ in range(2):  # no time for anything
        late = bl.solve(bl.parse(text), checkpoint=path, resume=True, time_limit=1e-6)
        assert late.status == "time_limit"
    again = bl.solve(bl.parse(text), checkpoint=path, resume=True)
    assert np.array_equal(again["x"], whole["x"])


def test_a_method_that_has_failed_is_not_tried_again(
    every: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken("broken", Status.STALLED)
    with_first(monkeypatch, broken)
    whole = bl.solve(bl.parse(QUADRATIC), checkpoint=tmp_path / "run.ckpt")
    assert whole.decision.notes == (
        "`broken` came to no certified end at F = 1; went on with `direct`",
    )
    tries, init = [0], broken.init

    def counted(*given: Any) -> Any:
        tries[0] += 1
        return init(*given)

    monkeypatch.setattr(broken, "init", counted)
    for moment in list(every):
        again = bl.solve(bl.parse(QUADRATIC), checkpoint=moment, resume=True)
        assert (again.F, again.backend, again.status) == (whole.F, "direct", "converged")
        assert again.decision.notes == whole.decision.notes
        assert [r.iteration for r in again.history] == [r.iteration for r in whole.history]
    # Its own moments: its only iteration, and the end of it.
    assert tries == [2]
