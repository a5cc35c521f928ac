"""Several processes: shares of the data add up to the whole, ranks that die end the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.cli.main import main
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums import sharded, shares
from bilevelpy.lowering.sums.nonfinite import culprit
from bilevelpy.lowering.sums.sharded import ShardedOracle
from bilevelpy.lowering.sums.shares import Ask, Share
from bilevelpy.lowering.sums.streaming import StreamedOracle, is_streamed
from bilevelpy.model import Given, read_model

RIDGE = """\
model ridge;
dim n, m, p;
param X[n, p], y[n], Xv[m, p], yv[m];
upper {
  var lam[p] in [-5, 5] start 0;
  minimize mean((Xv @ w - yv)^2) + 0.01 * sumsq(lam);
}
lower fit {
  var w[p];
  minimize mean((X @ w - y)^2) + sum(exp(lam) * w^2);
}
"""
# Followers are divided like rows of data, though each has its own variables.
FAMILY = """\
model family;
set FIRM = 1..7;
param a[FIRM] = [1, 2, 3, 4, 5, 6, 7];
upper { var x start 0.3; minimize sum((firm.q[i] - a[i])^2 for i in FIRM) + x^2; }
lower firm[i in FIRM] { var q; minimize a[i] * (q - x)^2 + exp(q); }
"""
BARE = "upper { var x; minimize (y - 1)^2; } lower g { var y; minimize (y - x)^2; }"


def _data(rows: int = 23, p: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    X, Xv = rng.normal(size=(rows, p)), rng.normal(size=(rows - 6, p))
    w = rng.normal(size=p)
    return {
        "X": X, "y": X @ w + rng.normal(size=rows),
        "Xv": Xv, "yv": Xv @ w + rng.normal(size=rows - 6),
    }  # fmt: skip


def _check_sums(model: bl.Model, world: int, made_by: type[TorchOracle]) -> None:
    whole = TorchOracle(model.bound)
    ranks = [Share(made_by(model.bound), rank, world) for rank in range(world)]
    rng = torch.Generator().manual_seed(0)
    x, y, v = (
        torch.randn(k, generator=rng, dtype=torch.float64) for k in (whole.n, whole.m, whole.m)
    )

    def total(request: Ask, number: int = 0) -> torch.Tensor:
        found = [s.answer(request, number, x, y, v) for s in ranks]
        assert all(part is not None for part in found)
        return sum(part for part in found if part is not None)  # type: ignore[return-value]

    value, by_x, by_y = whole.value_grad_F(x, y)
    expected = torch.cat([torch.tensor([value], dtype=torch.float64), by_x, by_y])
    assert torch.allclose(total(Ask.DF), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(total(Ask.DF_Y)[1:], whole.grad_f(x, y), rtol=1e-12, atol=1e-12)
    assert torch.allclose(total(Ask.DF_X), whole.grad_f_x(x, y), rtol=1e-12, atol=1e-12)
    H = total(Ask.HESSIAN).reshape(whole.m, whole.m)
    assert torch.allclose(H, whole.hessian(x, y), rtol=1e-12, atol=1e-12)
    for kind in range(3):
        for share in ranks:
            share.answer(Ask.MAKE, 3 * 5 + kind, x, y, v)
        made = getattr(whole, ("pullback", "hvp", "cross")[kind])(x, y)(v)
        exact = torch.cat(made) if isinstance(made, tuple) else made
        assert torch.allclose(total(Ask.USE, 5), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("world", [1, 2, 3, 30])
@pytest.mark.parametrize("text", [RIDGE, FAMILY])
def test_the_parts_of_all_ranks_add_up_to_the_whole(text: str, world: int) -> None:
    """Thirty ranks are more than there are rows: some have none."""
    model = bl.parse(text, data=_data() if "param X" in text else None)
    _check_sums(model, world, TorchOracle)


@pytest.mark.parametrize("world", [1, 2, 30])
def test_shares_of_data_in_files_go_by_blocks(
    tmp_path: Path, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, array in _data().items():
        np.save(tmp_path / f"{name}.npy", array)
    # 23 rows of 5 numbers beside the block of some 200 bytes: several blocks a rank.
    monkeypatch.setenv("BILEVELPY_MEMORY", "1e-7")
    monkeypatch.setattr(shares, "BLOCK", 200)
    (tmp_path / "ridge.blv").write_text(RIDGE)
    files = tuple((name, str(tmp_path / f"{name}.npy")) for name in ("X", "y", "Xv", "yv"))
    model = read_model(str(tmp_path / "ridge.blv"), Given(None, {}, files, {}))
    assert is_streamed(model.bound)
    parts = Share(StreamedOracle(model.bound), 0, world).parts
    assert len(parts[1]) > 1 or world == 30
    _check_sums(model, world, StreamedOracle)


def test_a_model_without_sums_is_refused() -> None:
    with pytest.raises(bl.UsageError, match="nothing to divide"):
        Share(TorchOracle(bl.parse(BARE).bound), 0, 2)


def _torchrun(folder: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
        "-m", "bilevelpy", *arguments,
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ridge.blv").write_text(RIDGE)
    np.savez(tmp_path / "data.npz", **_data())
    return tmp_path


def test_two_processes_find_what_one_finds(folder: Path) -> None:
    scale = RIDGE.replace("var w[p];", "var w[p], s in [0, inf];")  # has no logarithm at 0
    (folder / "ridge.blv").write_text(
        scale.replace("minimize mean((X", "minimize s - log(s) + mean((X")
    )
    given = ["solve", "ridge.blv", "--data", "data.npz", "--json", "--tol", "1e-9"]
    both = subprocess.run(
        _torchrun(folder, *given), cwd=folder, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert both.returncode == 0, both.stderr
    found = json.loads(both.stdout)  # one object: the other rank prints nothing
    alone = bl.solve(folder / "ridge.blv", data=folder / "data.npz", tol=1e-9)
    assert found["success"]
    assert found["objective"]["upper"] == pytest.approx(alone.F, rel=1e-8)
    assert np.allclose(found["upper"]["lam"], alone["lam"], rtol=1e-6, atol=1e-6)
    assert np.allclose(found["lower"]["fit"]["w"], alone["w"], rtol=1e-8, atol=1e-8)


def test_a_refusal_of_rank_0_is_the_only_error(folder: Path) -> None:
    given = ["solve", "ridge.blv", "--data", "data.npz", "--json", "--backend", "nosuch"]
    both = subprocess.run(
        _torchrun(folder, *given), cwd=folder, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert both.returncode != 0
    assert json.loads(both.stdout)["message"].startswith("no backend is called `nosuch`")
    assert "was lost" not in both.stderr


@pytest.mark.parametrize("command", ["sweep", "compare", "report", "certify"])
def test_other_commands_are_run_by_rank_0_alone(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else every table is printed, and every file written, once a process."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    given = [command, "ridge.blv", *(["nosuch.json"] if command == "certify" else [])]
    given += ["--out", "r.html"] if command == "report" else []
    monkeypatch.setenv("RANK", "1")
    assert main(given) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    assert main(given) == 2, "the model has no data, which rank 0 says"
    assert "no data for `X`" in capsys.readouterr().err


def test_ranks_with_different_data_are_refused(folder: Path) -> None:
    """Every rank reads its own file here, as on machines whose copies differ."""
    other = _data()
    other["y"][3] += 1.0
    np.savez(folder / "other.npz", **other)
    (folder / "run.py").write_text(
        "import os, sys\n"
        "from bilevelpy.cli.main import main\n"
        "data = ['data.npz', 'other.npz'][int(os.environ['RANK'])]\n"
        "sys.exit(main(['solve', 'ridge.blv', '--json', '--data', data]))\n"
    )
    command = [*_torchrun(folder)[:-2], "run.py"]
    both = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert json.loads(both.stdout)["message"].startswith("`y` of rank 1 is not that of rank 0")


def test_numbers_that_are_not_finite_name_their_rank_and_row(folder: Path) -> None:
    (folder / "ridge.blv").write_text(
        RIDGE.replace("mean((X @ w - y)^2)", "mean((X @ w - y)^2 + exp(y))")
    )
    data = _data()
    data["y"][17] = 800.0  # of 23 rows the second process has those from the twelfth on
    np.savez(folder / "data.npz", **data)
    given = ["solve", "ridge.blv", "--data", "data.npz", "--json", "--backend", "aid"]
    both = subprocess.run(
        _torchrun(folder, *given), cwd=folder, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    found = json.loads(both.stdout)
    assert found["status"] == "diverged"
    assert "in the lower objective element 18 of `n` (rank 1) is not" in found["message"]
    alone = bl.solve(folder / "ridge.blv", data=folder / "data.npz", backend="aid")
    assert "in the lower objective element 18 of `n` is not" in alone.message


def test_a_sum_that_only_overflows_as_a_whole_is_a_range() -> None:
    text = "dim n; param a[n]; " + BARE.replace("(y - x)^2", "sum(exp(a[i] + y) for i in n)")
    oracle = TorchOracle(bl.parse(text, data={"a": np.full(3, 708.5)}).bound)
    where = culprit(oracle, oracle.f_expr, [torch.zeros(()).double(), torch.ones(()).double()])
    assert where is not None
    assert where.startswith("the sum of elements 2 to 3 of")


def _ranks(parent: int) -> dict[int, int]:
    """Rank -> process, of the children of torchrun."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if entry.name.isdigit() and int(status[1]) == parent:
                environment = (entry / "environ").read_bytes().split(b"\0")
                rank = [e for e in environment if e.startswith(b"RANK=")]
                if rank:
                    found[int(rank[0][5:])] = int(entry.name)
        except (OSError, ValueError, IndexError):
            continue
    return found


class _Exchange:
    """Stands in for the network: a signal arrives in the middle of an exchange."""

    def __init__(self) -> None:
        self.oracle: ShardedOracle | None = None
        self.sent = 0

    def broadcast(self, vector: torch.Tensor, source: int, group: object) -> None:
        self.sent += 1
        if self.oracle is not None and self.sent == 1:
            self.oracle.interrupt()

    def reduce(self, vector: torch.Tensor, target: int, group: object) -> None:
        self.sent += 1

    def get_world_size(self, group: object) -> int:
        return 2


def test_an_interruption_waits_for_the_end_of_an_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the other ranks would take the next request for the rest of this one."""
    network = _Exchange()
    monkeypatch.setattr(sharded, "dist", network)
    oracle = ShardedOracle(bl.parse(RIDGE, data=_data()).bound, object())  # type: ignore[arg-type]
    network.oracle = oracle
    x, y = torch.zeros(oracle.n).double(), torch.zeros(oracle.m).double()
    with pytest.raises(KeyboardInterrupt):
        oracle.F(x, y)
    assert network.sent == 3, "request, point and answer have been exchanged"
    oracle.F(x, y)
    with pytest.raises(KeyboardInterrupt):
        oracle.interrupt()  # at once where nothing is under way


def test_what_an_evaluation_raises_is_no_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _Exchange()
    monkeypatch.setattr(sharded, "dist", network)
    oracle = ShardedOracle(bl.parse(RIDGE, data=_data()).bound, object())  # type: ignore[arg-type]
    x, y = torch.zeros(oracle.n).double(), torch.zeros(oracle.m + 1).double()
    with pytest.raises(RuntimeError, match="size"):
        oracle.F(x, y)
    sent = network.sent
    oracle.stop()  # the others wait for an answer: a request now would be taken for it
    assert network.sent == sent
    with pytest.raises(bl.BackendError, match="has failed before"):
        oracle.F(x, y[:-1])


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc")
def test_a_killed_rank_ends_the_run_and_leaves_a_checkpoint(folder: Path) -> None:
    # Plain hypergradient steps of a small size: a run that is never done.
    text = RIDGE.replace("sumsq(lam)", "sum(lam^4)")
    (folder / "ridge.blv").write_text(text)
    kept = folder / "run.ckpt"
    process = subprocess.Popen(
        _torchrun(
            folder, "solve", "ridge.blv", "--data", "data.npz", "--backend", "f2ba",
            "--checkpoint", "run.ckpt", "--max-iter", "1000000", "--tol", "1e-14",
        ),
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 150
        while not kept.exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        assert kept.exists()
        os.kill(_ranks(process.pid)[1], signal.SIGKILL)
        process.communicate(timeout=100)  # an error, not a hang
        assert process.returncode != 0
    finally:
        process.kill()
    again = bl.solve(
        folder / "ridge.blv", data=folder / "data.npz", backend="f2ba", checkpoint=kept,
        resume=True, max_iter=1,
    )  # fmt: skip
    assert again.iterations > 1, "the run went on from the checkpoint"
