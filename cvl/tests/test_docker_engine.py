from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cvl.testing import docker_engine

OWNER = """
from cvl.testing import docker_engine
with docker_engine.engine() as engine:
    engine.docker("run", "-d", engine.image, "sleep", "1000")
    print(engine.folder, flush=True)
    input()
"""
LIMIT = 60.0

needs_docker = pytest.mark.skipif(bool(docker_engine.missing()), reason=docker_engine.missing())


@needs_docker
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_however_its_owner_ends(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().decode().strip())
        bridge = Path(f"/sys/class/net/cvl{owner.pid:x}")
        assert (folder / "docker.sock").is_socket()
        assert bridge.exists()
        assert running(folder)
        owner.send_signal(ending)
    until = time.monotonic() + LIMIT
    while folder.exists() or bridge.exists() or running(folder):
        assert time.monotonic() < until, (folder.exists(), bridge.exists(), running(folder))
        time.sleep(0.05)


@needs_docker
def test_why_it_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dockerd").write_text("#!/bin/sh\necho no engine today\nexit 1\n")
    (tmp_path / "dockerd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(OSError, match="no engine today"), docker_engine.engine():
        pass
    assert not Path(f"/sys/class/net/cvl{os.getpid():x}").exists()


def running(folder: Path) -> list[str]:
    """Return the command lines that name this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found
