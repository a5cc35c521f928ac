"""Includes: once each, from below the model's folder, never a device or a link that leads out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.sema import CheckResult, check

UPPER = "upper { var x; minimize x^2 + mine(x); }\n"


def run(folder: Path, text: str) -> CheckResult:
    return check(Source(str(folder / "model.blv"), text))


def test_each_file_once_and_relative_to_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.blv").write_text('include "b.blv";\ndef mine(x) = other(x);\n')
    (tmp_path / "sub" / "b.blv").write_text("def other(x) = x^2;\n")
    found = run(tmp_path, 'include "sub/a.blv"; include "sub/../sub/b.blv";\n' + UPPER)
    assert found.diagnostics == []
    assert len(found.sources) == 3


def test_circle(tmp_path: Path) -> None:
    (tmp_path / "a.blv").write_text('include "b.blv";\n')
    (tmp_path / "b.blv").write_text('include "a.blv";\ndef mine(x) = x;\n')
    found = run(tmp_path, 'include "a.blv";\n' + UPPER)
    assert [d.code for d in found.diagnostics] == ["BLV0226"]


def test_error_in_an_included_file_points_there(tmp_path: Path) -> None:
    (tmp_path / "a.blv").write_text("param z = foo;\ndef mine(x) = x @ x;\n")
    found = run(tmp_path, 'include "a.blv";\n' + UPPER)
    assert [d.code for d in found.diagnostics] == ["BLV0302", "BLV0201"][::-1]
    places = {d.primary.span.file for d in found.diagnostics if d.primary}
    assert places == {str(tmp_path / "a.blv")}


@pytest.mark.parametrize(
    "path", ["../x.blv", "/etc/passwd", "sub/../../x.blv", "C:/x.blv", "~/x", "", "\\\\host\\x"]
)
def test_paths_that_leave_are_not_opened(tmp_path: Path, path: str) -> None:
    found = run(tmp_path, f'include "{path}";\nupper {{ var x; minimize x^2; }}')
    assert [d.code for d in found.diagnostics] == ["BLV0225"]


@pytest.mark.parametrize("kind", ["link", "fifo", "large", "binary", "folder", "missing"])
def test_files_that_are_refused(tmp_path: Path, kind: str) -> None:
    outside, model = tmp_path / "outside.blv", tmp_path / "models"
    model.mkdir()
    outside.write_text("def mine(x) = x;\n")
    target = model / "a.blv"
    match kind:
        case "link":
            target.symlink_to(outside)
        case "fifo":
            os.mkfifo(target)
        case "large":
            target.write_text("# " + "x" * 5_000_000)
        case "binary":
            target.write_bytes(b"\xff\xfe\x00\x80")
        case "folder":
            target.mkdir()
    found = run(model, 'include "a.blv";\nupper { var x; minimize x^2; }')
    assert [d.code for d in found.diagnostics] == ["BLV0225"]


def test_standard_library_in_any_text() -> None:
    text = 'include "std:losses"; include "std:losses";\ndim n; param z[n], y[n];\n' + (
        "upper { var s; minimize logistic_loss(s * z, y) + hinge_loss(s * z, y); }"
    )
    found = check(Source("<text>", text))
    assert found.diagnostics == []


def test_every_function_of_the_standard_library() -> None:
    text = """include "std:losses";
    dim n, p; param A[n, p], b[n], y[n], K[n, p], g[n];
    upper { var w[p]; let z = A @ w;
      minimize mse(A, b, w) + rmse(A, b, w) + mae(A, b, w) + squared_loss(z, y)
        + absolute_loss(z, y) + logistic_loss(z, y) + hinge_loss(z, y) + squared_hinge_loss(z, y)
        + huber_loss(z, y, 1) + quantile_loss(z, y, 0.9) + binary_cross_entropy(z, y)
        + cross_entropy(A * 2, K) + cross_entropy(A, g) + kl_divergence(exp(w), exp(2 * w))
        + ridge_penalty(w) + elastic_net(w, 0.5); }"""
    assert check(Source("<text>", text)).diagnostics == []


def test_no_file_no_include() -> None:
    found = check(Source("<text>", 'include "a.blv"; upper { var x; minimize x^2; }'))
    assert [d.code for d in found.diagnostics] == ["BLV0225"]


def test_loader_replaces_the_disk() -> None:
    asked: list[str] = []

    def loader(path: str) -> Source:
        asked.append(path)
        return Source(path, "def mine(x) = x;")

    found = check(Source("folder/model.blv", 'include "a.blv";\n' + UPPER), loader=loader)
    assert found.diagnostics == []
    assert asked == ["folder/a.blv"]
