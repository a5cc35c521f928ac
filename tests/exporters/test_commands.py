"""The command line of export and import."""

import json

import numpy as np
import problems
import pytest

from bilevelpy.cli.main import main


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "b88.blv"
    path.write_text(problems.B88)
    return path


def test_listing(capsys):
    assert main(["export", "--list"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("json ")
    assert main(["exporters", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exporters"]["lp"]["suffix"] == ".lp"


@pytest.mark.parametrize("to", ["lp", "mps", "nl"])
def test_verify(to, model, capsys):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    out = model.with_suffix(f".{to}")
    assert main(["export", str(model), "--to", to, "--out", str(out), "--verify", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["verified"]
    assert report["passed"] is True
    assert report["F"] == pytest.approx(17.0, rel=1e-5)


def test_verify_finds_a_wrong_constant(tmp_path, capsys):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    path = tmp_path / "p1.blv"
    path.write_text(problems.CONCAVE.replace("x^2 + y", "x^2 + y^2"))
    command = ["export", str(path), "--to", "lp", "--out", str(tmp_path / "c.lp"), "--verify"]
    # The stationary point y = x/2 is no minimum of a concave follower.
    assert main([*command, "--option", "force=true"]) == 1
    assert "NOT optimal for the follower" in capsys.readouterr().err


def test_errors_exit_with_2(model, tmp_path, capsys):
    out = str(tmp_path / "f")
    assert main(["export", str(model), "--to", "mps-aux", "--out", out]) == 2
    assert "BLV0701" in capsys.readouterr().err
    assert main(["export", str(model)]) == 2
    assert main(["export", str(model), "--to", "lp", "--out", out, "--option", "speed=1"]) == 2
    assert main(["import", str(model), "--out", str(tmp_path / "g.blv")]) == 2
    assert not (tmp_path / "g.blv").exists()


def test_json_round_trip_gives_the_text_back(model, tmp_path):
    out = tmp_path / "b88.json"
    assert main(["export", str(model), "--to", "json", "--out", str(out), "--verify"]) == 0
    again = tmp_path / "again.blv"
    assert main(["import", str(out), "--out", str(again)]) == 0
    assert again.read_text() == problems.B88


def test_data_goes_beside_the_text(tmp_path):
    path = tmp_path / "m.blv"
    path.write_text(
        "model m; set S; param c[S]; upper { var x in [0, 1]; minimize x; } "
        "lower f { var y[S] in [0, 1]; minimize sum(c[s]*y[s] for s in S); }"
    )
    (tmp_path / "d.json").write_text('{"S": ["a", "b"], "c": [1, 2]}')
    out = tmp_path / "m.json"
    data = ["--data", str(tmp_path / "d.json")]
    assert main(["export", str(path), "--to", "json", "--out", str(out), *data]) == 0
    assert main(["import", str(out), "--out", str(tmp_path / "again.blv")]) == 0
    beside = json.loads((tmp_path / "again.data.json").read_text())
    assert beside == {"S": ["a", "b"], "c": [1.0, 2.0]}


def test_large_data_stays_out_of_the_text(tmp_path, capsys):
    path = tmp_path / "m.blv"
    path.write_text(
        "model m; dim n; param c[n]; upper { var x in [0, 1]; minimize x; } "
        "lower f { var y[n] in [0, 1]; minimize sum(c[i]*y[i] for i in 1..n); }"
    )
    np.save(tmp_path / "c.npy", np.arange(20_000.0))
    out = tmp_path / "m.json"
    data = ["--data", f"c={tmp_path / 'c.npy'}"]
    assert main(["export", str(path), "--to", "json", "--out", str(out), *data, "--verify"]) == 0
    assert out.stat().st_size < 10_000
    assert main(["import", str(out), "--out", str(tmp_path / "again.blv")]) == 0
    with np.load(tmp_path / "again.data.npz") as content:
        assert np.array_equal(content["c"], np.arange(20_000.0))


def test_verify_compares_with_our_optimum(model, capsys):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    out = model.with_suffix(".lp")
    assert main(["export", str(model), "--to", "lp", "--out", str(out), "--verify"]) == 0
    assert "ours: F = 17 by" in capsys.readouterr().err


@pytest.mark.parametrize(("to", "needed"), [("bileveljump", "Julia"), ("ampl", "AMPL")])
def test_verify_names_what_would_do_it(to, needed, model, capsys):
    out = model.with_suffix(".x")
    assert main(["export", str(model), "--to", to, "--out", str(out), "--verify"]) == 0
    assert f"not verified here: it takes {needed}" in capsys.readouterr().err


def test_verify_without_the_consumers_folder(model, capsys, monkeypatch):
    monkeypatch.setenv("BILEVELPY_CONSUMERS", str(model.parent))
    monkeypatch.setenv("PATH", "")
    for to in ("latex", "blvpy", "gams-emp"):
        out = model.with_suffix(f".{to}")
        assert main(["export", str(model), "--to", to, "--out", str(out), "--verify"]) == 0
        assert "install" in capsys.readouterr().err


def test_verify_takes_files_of_any_ending(tmp_path, capsys):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    path = tmp_path / "leader.blv"
    path.write_text(problems.STACKELBERG)
    for to in ("lp", "casadi"):
        command = ["export", str(path), "--to", to, "--out", str(tmp_path / f"{to}.txt")]
        assert main([*command, "--verify", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)["verified"]
        assert report["passed"] is True
        assert report["F"] == pytest.approx(18.0, rel=1e-4)


def test_verify_of_a_model_of_one_level(tmp_path, capsys):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    path = tmp_path / "one.blv"
    path.write_text(
        "model one; upper { var x in [0, 4]; minimize (x - 1)^2; subject to c: x >= 2; }"
    )
    command = ["export", str(path), "--to", "lp", "--out", str(tmp_path / "o.lp"), "--verify"]
    assert main(command) == 0
    assert "ours: none for a model of one level" in capsys.readouterr().err
    for to in ("gams-emp", "blvpy", "bileveljump", "mps-aux", "torch"):
        assert main(["export", str(path), "--to", to, "--out", str(tmp_path / "f")]) == 2
        assert "BLV0701" in capsys.readouterr().err
    # Without pairs there is no word of AMPL's in the file, but squares: it is no GMPL all the same.
    command = ["export", str(path), "--to", "ampl", "--out", str(tmp_path / "o.mod"), "--verify"]
    assert main(command) == 0
    assert "it takes AMPL" in capsys.readouterr().err
