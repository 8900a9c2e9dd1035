"""Keeps a real cluster up for a person: `make kube` starts it, `make kube-stop` ends it."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cvl.testing import kube_cluster
from cvl.testing.lifeline import started

STOP_LIMIT = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """The process that holds the cluster. `started` tells it from another with its pid."""

    pid: int
    started: str
    kubeconfig: str

    @property
    def alive(self) -> bool:
        return started(self.pid) == self.started


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(prog="python -m cvl.testing.kube_keeper")
    parser.add_argument("act", choices=ACTS)
    return ACTS[parser.parse_args(argv).act]()


def start() -> int:
    """Print how to reach the cluster; start it before, unless it runs."""
    if why := kube_cluster.missing():
        sys.stderr.write(f"{why}\n")
        return 125
    with _locked():
        keeper = _known() or _start_keeper()
    if keeper is None:
        return 125
    sys.stdout.write(f"export KUBECONFIG={keeper.kubeconfig}\n")
    sys.stdout.write(f"# an image: {kube_cluster.IMAGE}; contexts: admin, limited\n")
    sys.stdout.write("# `make kube-stop` ends it\n")
    return 0


def stop() -> int:
    """End the cluster, if there is one."""
    with _locked():
        if keeper := _known():
            os.kill(keeper.pid, signal.SIGTERM)
            ends = time.monotonic() + STOP_LIMIT
            while keeper.alive and time.monotonic() < ends:
                time.sleep(0.05)
            if keeper.alive:
                sys.stderr.write(f"process {keeper.pid} does not end\n")
                return 125
        _record().unlink(missing_ok=True)
    return 0


def hold() -> int:
    """Hold a cluster until TERM; a line on stdout says that it is up."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with kube_cluster.cluster() as running:
        me = os.getpid()
        keeper = Keeper(pid=me, started=started(me), kubeconfig=str(running.kubeconfig))
        _record().write_text(json.dumps(asdict(keeper)))
        sys.stdout.write("up\n")
        sys.stdout.flush()
        over.wait()
    return 0


ACTS = {"start": start, "stop": stop, "hold": hold}


def _start_keeper() -> Keeper | None:
    with (_record().parent / "keeper.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cvl.testing.kube_keeper", "hold"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdout is not None
    if process.stdout.readline() == b"up\n":
        return _known()
    sys.stderr.write(Path(log.name).read_text())
    return None


def _known() -> Keeper | None:
    """Return the keeper that runs, if one does."""
    try:
        keeper = Keeper(**json.loads(_record().read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return keeper if keeper.alive else None


def _record() -> Path:
    return kube_cluster.programs().parent / "keeper.json"


@contextmanager
def _locked() -> Iterator[None]:
    """Let one at a time start or stop it."""
    folder = _record().parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "keeper.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
