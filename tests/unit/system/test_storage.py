"""Files are complete or absent; JSON has no NaN."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from bilevelpy.errors import UsageError
from bilevelpy.system import storage


def test_plain_takes_arrays_and_replaces_what_json_lacks() -> None:
    value = {
        "a": np.array([[1.0, math.nan], [math.inf, -math.inf]]),
        "n": np.int64(3),
        "b": np.bool_(True),
    }
    assert storage.plain(value) == {"a": [[1.0, None], ["inf", "-inf"]], "n": 3, "b": True}
    assert json.loads(storage.dumps(value)) == storage.plain(value)


def test_number_inverts_plain() -> None:
    for value in (1.5, math.inf, -math.inf):
        assert storage.number(storage.plain(value)) == value
    assert math.isnan(storage.number(storage.plain(math.nan)))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, {"old": 1})

    def fail(stream: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(path, fail)
    assert storage.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_files_get_the_usual_mode(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "a.json", {})
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_cannot_be_written_is_an_error_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        storage.write_json(tmp_path, {})
    with pytest.raises(UsageError, match="No such file or directory"):
        storage.write_json(tmp_path / "no" / "a.json", {})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY", b"[1]"])
def test_damaged_files_are_errors_of_usage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot read"):
        storage.read_npz(path)
    with pytest.raises(UsageError, match="cannot read"):
        storage.read_json(path)


def test_a_truncated_archive_is_an_error_of_usage(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    storage.write_npz(path, {"x": np.arange(1000.0)}, {"k": 1})
    arrays, meta = storage.read_npz(path)
    assert meta == {"k": 1}
    np.testing.assert_array_equal(arrays["x"], np.arange(1000.0))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="cannot read"):
        storage.read_npz(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no such device")
def test_open_text_ends_where_a_device_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ENDLESS", 10_000)
    with pytest.raises(UsageError, match="binary"):
        storage.open_text("/dev/zero", "model")
    read, write = os.pipe()
    os.write(write, b"x" * 20_000)
    os.close(write)
    with pytest.raises(UsageError, match="no end within 10,000 bytes"):
        storage.open_text(f"/dev/fd/{read}", "model")
    os.close(read)


def test_open_text_refuses_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.blv").write_bytes(b"model \0\1\2")
    with pytest.raises(UsageError, match="binary"):
        storage.open_text(tmp_path / "a.blv", "model")
    with pytest.raises(UsageError, match="directory"):
        storage.open_text(tmp_path, "model")
    with pytest.raises(UsageError, match="No such file"):
        storage.open_text(tmp_path / "b.blv", "model")
    with pytest.raises(UsageError, match="cannot read"):
        storage.open_text("a\0b", "model")
