"""What containers ask for is lowered to what root has, and nothing else is changed."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from cvl.testing import lenient_runc

LIMITS = [
    {"type": "RLIMIT_MEMLOCK", "hard": 2**64 - 1, "soft": 2**64 - 1},
    {"type": "RLIMIT_NOFILE", "hard": 64, "soft": 32},
]
CAPABILITIES = {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "effective": []}
WANTED = {
    "ociVersion": "1.0.2",
    "process": {"oomScoreAdj": -998, "rlimits": LIMITS, "capabilities": CAPABILITIES},
}


def lowered(folder: Path, config: object) -> dict[str, object]:
    (folder / "config.json").write_text(json.dumps(config))
    lenient_runc.main(["--root", "/r", "create", "--bundle", str(folder), "id"])
    changed: dict[str, object] = json.loads((folder / "config.json").read_text())
    return changed


def test_it_asks_for_no_more_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenient_runc, "_capable", lambda _: False)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, 100))
    assert lowered(tmp_path, WANTED) == {
        "ociVersion": "1.0.2",
        "process": {
            "rlimits": [
                {"type": "RLIMIT_MEMLOCK", "hard": 100, "soft": 100},
                {"type": "RLIMIT_NOFILE", "hard": 64, "soft": 32},
            ],
            "capabilities": {"bounding": ["CAP_CHOWN"], "effective": []},
        },
    }


def test_what_can_be_had_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenient_runc, "_capable", lambda _: False)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (-1, resource.RLIM_INFINITY))
    modest = {"process": {"oomScoreAdj": 500, "rlimits": LIMITS}}
    assert lowered(tmp_path, modest) == modest
    assert lowered(tmp_path, {}) == {}


def test_a_root_that_may_everything_needs_no_lowering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenient_runc, "_capable", lambda _: True)
    assert lowered(tmp_path, WANTED) == WANTED
