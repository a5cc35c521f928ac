"""The command line of export and import."""

import json

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
