"""Truncated and damaged files: either a model, or a diagnostic with file and line; nothing else."""

import gzip
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_ampl import P1, TABLES
from test_mps_aux import INDEXED, LP, MPS, named

import bilevelpy as bl
from bilevelpy.importers.read import read_text

pytest.importorskip("highspy", reason="needs HiGHS (pip install highspy)")
SHARED = Path(__file__).parents[3] / "shared" / "problems" / "mps_aux"
RECORD = json.dumps(
    {
        "name": "b88", "class": "QP-QP", "n_x": 1, "n_y": 1,
        "upper": {"objective": "(x1 - 5)^2 + (2*y1 + 1)^2", "constraints": ["-x1 <= 0"]},
        "lower": {"objective": "(y1 - 1)^2 - 1.5*x1*y1", "constraints": ["x1 + y1 - 7 <= 0"]},
        "start": {"x": [1.0], "y": [0.5]},
    },
    indent=1,
)  # fmt: skip
INTERDICTION = (
    "N 2\nM 4\nLC 0\nLC 1\nLR 0\nLR 1\nLR 2\nLR 3\nLO 1\nLO -4\nOS 1\nIC 1\nIC 2\nIB 1.5\n"
)
SMALL = {
    "p1.aux": (named(), {"p1.mps": MPS}),
    "p1.mps": (MPS, {"p1.aux": named()}),
    "index.aux": (INDEXED, {"index.mps": MPS}),
    "cut.aux": (INTERDICTION, {"cut.mps": MPS.replace("PL BND y", "UP BND y 9")}),
    "lin.lp": (LP, {"lin.aux": named()}),
    "p1.mod": (P1, {}),
    "tables.mod": (TABLES, {}),
    "record.json": (RECORD, {}),
}
# A file that cannot be read as such has no line.
PLACE = re.compile(r"(p1|index|cut|lin|tables|record|m)\.(mps|lp|aux|mod|json):\d+:\d+")


def attempt(folder, name, content):
    """Read a damaged file; what comes out is a model or a diagnostic."""
    path = folder / name
    path.write_bytes(content)
    main = path.with_suffix(".mps") if path.suffix == ".aux" else path
    found = fault(main)
    if isinstance(found, bl.ModelError):
        # Faults of the file are told there, those of what it means in the text made from it.
        assert PLACE.search(str(found)) or "<text>:" in str(found), str(found)
    elif found is not None:
        assert name in str(found) or main.name in str(found)
        assert "binary" in str(found) or name == "record.json", str(found)


def fault(path):
    """What reading a file raises of this package's errors; others are failures of the test."""
    try:
        if path.name == "m.json":
            bl.read(path)
            return None
        text = read_text(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bl.parse(text)
    except bl.BilevelError as error:
        return error
    return None


@pytest.mark.parametrize("name", SMALL)
def test_truncated_files(name, tmp_path):
    text, others = SMALL[name]
    for other, content in others.items():
        (tmp_path / other).write_text(content)
    raw = text.encode()
    for end in range(0, len(raw), max(1, len(raw) // 60)):
        attempt(tmp_path, name, raw[:end])


@pytest.mark.parametrize("name", SMALL)
def test_flipped_bytes(name, tmp_path):
    text, others = SMALL[name]
    for other, content in others.items():
        (tmp_path / other).write_text(content)
    rng = np.random.default_rng(0)
    for _ in range(60):
        raw = bytearray(text.encode())
        for place in rng.integers(0, len(raw), rng.integers(1, 4)):
            raw[place] = int(rng.integers(0, 256))
        attempt(tmp_path, name, bytes(raw))


@pytest.mark.parametrize("ending", [".mps", ".aux"])
def test_pairs_of_the_collection(ending, tmp_path):
    if not SHARED.is_dir():
        pytest.skip("the standard problems (../shared/problems) are not here")
    rng = np.random.default_rng(1)
    for path in sorted(SHARED.glob(f"*{ending}")):
        pair = {e: path.with_suffix(e).read_bytes() for e in (".mps", ".aux")}
        for other, content in pair.items():
            (tmp_path / f"m{other}").write_bytes(content)
        raw = pair[ending]
        for end in rng.integers(0, len(raw), 6):
            attempt(tmp_path, f"m{ending}", raw[:end])
        for _ in range(4):
            damaged = bytearray(raw)
            damaged[int(rng.integers(0, len(raw)))] = int(rng.integers(0, 256))
            attempt(tmp_path, f"m{ending}", bytes(damaged))


def test_damaged_packed_files(tmp_path, monkeypatch):
    (tmp_path / "p1.aux").write_text(named())
    path = tmp_path / "p1.mps.gz"
    raw = gzip.compress(MPS.encode())
    rng = np.random.default_rng(5)
    for end in range(len(raw)):
        path.write_bytes(raw[:end])
        assert isinstance(fault(path), bl.BilevelError)
    for _ in range(100):
        damaged = bytearray(raw)
        for place in rng.integers(0, len(raw), rng.integers(1, 4)):
            damaged[place] = int(rng.integers(0, 256))
        path.write_bytes(bytes(damaged))
        found = fault(path)
        assert found is None or "p1.mps.gz" in str(found)
    path.write_bytes(raw)
    assert fault(path) is None
    monkeypatch.setattr("bilevelpy.importers.mps_file.LARGEST", 100)
    assert "unpacks to more than 100 bytes" in str(fault(path))


def test_damaged_json(tmp_path):
    path = tmp_path / "m.json"
    bl.export(bl.parse(read_text_of_p1(tmp_path)), to="json", path=path)
    raw = path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(40):
        damaged = bytearray(raw)
        damaged[int(rng.integers(0, len(raw)))] = int(rng.integers(32, 127))
        path.write_bytes(bytes(damaged))
        found = fault(path)
        assert found is None or "m.json" in str(found)
    for end in rng.integers(0, len(raw), 20):
        path.write_bytes(raw[:end])
        with pytest.raises(bl.UsageError, match=r"m\.json"):
            bl.read(path)


def test_damaged_arrays_beside(tmp_path):
    path = tmp_path / "m.json"
    text = (
        "model m; dim n; param c[n]; upper { var x; minimize x^2; } lower f { var y[n] in [0, 1]; "
    )
    model = bl.parse(text + "minimize sum(c[i]*y[i] for i in 1..n); }", data={"c": np.arange(6e3)})
    bl.export(model, to="json", path=path)
    raw = (tmp_path / "m.npz").read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(25):
        damaged = bytearray(raw)
        damaged[int(rng.integers(0, len(raw)))] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "m.npz").write_bytes(bytes(damaged))
        found = fault(path)
        assert found is None or isinstance(found, bl.UsageError)
    for end in rng.integers(0, len(raw), 8):
        (tmp_path / "m.npz").write_bytes(raw[:end])
        with pytest.raises(bl.UsageError, match=r"m\.npz"):
            bl.read(path)
    (tmp_path / "m.npz").unlink()
    with pytest.raises(bl.UsageError, match=r"m\.npz"):
        bl.read(path)


def read_text_of_p1(folder):
    (folder / "p1.mod").write_text(P1)
    return read_text(folder / "p1.mod")
