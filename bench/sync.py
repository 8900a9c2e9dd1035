"""How long files take to be ready for a run on a host, against rsync over the same connection.

    python bench/sync.py [FOLDER] [--files 10000] [--pairs 7]

FOLDER is where both sides keep their files (default: the system's temporary folder). Each round
measures both, one after the other, in turns; what counts is the ratio of each pair. Ours is
everything from reading the local files to the job's start: selection, delta, transfer, workspace,
supervisor. Theirs is `rsync -a`, with `--copy-dest=CACHE` where the host has the files already,
into an empty folder. Nothing is removed between the rounds: some file systems are slow to reuse
what was just freed, which would be charged to whoever comes next.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from cvl.remote import launch
from cvl.remote.far import FarSide
from cvl.remote.launch import Setup
from cvl.scope import Scope
from cvl.spec import JobSpec, Source, new_run_id
from cvl.testing.sshd import Sshd
from cvl.transports.openssh import OpenSSH

EXAMPLE = "examples/bench/sync/big"
LIMIT = 120.0
SIZES = (200, 1000, 3000, 8000)
GOALS = {"first": 1.1, "unchanged": 1.25, "one changed": 1.25}


@dataclass(kw_only=True)
class Bench:
    """Local files, a host that holds them already, and how both sides are timed."""

    folder: Path
    repo: Path
    host: Sshd
    base: Path
    rounds: int = 0
    paths: list[Path] = field(default_factory=list)

    def ours(self, base: Path | None = None) -> float:
        """Return the seconds from reading the files to the start of a job that works on them."""
        far = FarSide(OpenSSH(self.host.name), str(base or self.base))
        spec = JobSpec(
            run_id=new_run_id(EXAMPLE),
            argv=("true",),
            source=Source(root=self.repo, folder=EXAMPLE),
        )
        began = time.perf_counter()
        job = launch.start(far, spec, {"run": spec.run_id, "base": far.base}, Setup(), Scope())
        spent = time.perf_counter() - began
        for _ in job.chunks():
            pass
        job.close()
        return spent

    def theirs(self, *, cached: bool) -> float:
        """Return the seconds that rsync takes into an empty folder."""
        self.rounds += 1
        place = self.folder / f"theirs-{self.rounds}"
        place.mkdir()
        copy = [f"--copy-dest={self.folder / 'cache'}"] if cached else []
        began = time.perf_counter()
        self.rsync(*copy, f"{self.repo}/", f"{self.host.name}:{place}/")
        return time.perf_counter() - began

    def rsync(self, *words: str) -> None:
        """Run rsync over the connection that cvl keeps."""
        sockets = Path(self.host.env["XDG_RUNTIME_DIR"]).rglob("*")
        kept = next(path for path in sockets if path.is_socket())
        shell = f"ssh -F '{self.host.ssh_config}' -S '{kept}' -o ControlMaster=no"
        subprocess.run(["rsync", "-a", "-e", shell, *words], check=True, timeout=LIMIT)

    def change(self) -> None:
        """Change one file; rsync's cache gets the old state only, as ours does."""
        path = self.paths[self.rounds % len(self.paths)]
        path.write_text(f"changed {self.rounds}\n")

    def fresh(self) -> float:
        """Time a first sync: nothing is known here and nothing is there."""
        self.rounds += 1
        before = os.environ["CVL_STATE_DIR"]
        os.environ["CVL_STATE_DIR"] = str(self.folder / f"state-{self.rounds}")
        try:
            return self.ours(self.folder / f"base-{self.rounds}")
        finally:
            os.environ["CVL_STATE_DIR"] = before


@contextmanager
def bench(folder: Path, files: int) -> Iterator[Bench]:
    """Make the files and the host; both sides have met once."""
    repo = folder / "repo"
    paths = list(made(repo, files))
    with Sshd(folder / "host") as host:
        os.environ |= {**host.env, "CVL_STATE_DIR": str(folder / "state")}
        found = Bench(folder=folder, repo=repo, host=host, base=folder / "base", paths=paths)
        found.ours()
        found.rsync(f"{repo}/", f"{host.name}:{folder / 'cache'}/")
        yield found


def made(repo: Path, count: int) -> Iterator[Path]:
    """Make a checkout with so many files in a hundred folders; yield the files."""
    random = Random(1)
    for number in range(count):
        path = repo / EXAMPLE / f"d{number % 100:02d}" / f"file-{number:05d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(random.choice(SIZES)))
        yield path
    (repo / EXAMPLE / "example.yaml").write_text("name: big\n")
    for words in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", "-C", str(repo), *words], check=True, timeout=LIMIT)
    shutil.rmtree(repo / ".git/objects")  # the index is what matters
    (repo / ".git/objects").mkdir()


def pairs(
    count: int, ours: Callable[[], float], theirs: Callable[[], float]
) -> list[tuple[float, float]]:
    """Time both in turns, each first every other time."""
    found = []
    for number in range(count):
        if number % 2:
            other = theirs()
            found.append((ours(), other))
        else:
            found.append((ours(), theirs()))
    return found


def show(name: str, times: list[tuple[float, float]]) -> None:
    ratios = sorted(ours / theirs for ours, theirs in times)
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name:12} ours {ours:6.3f} s   rsync {theirs:6.3f} s   "
        f"ratio {statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})   "
        f"goal {GOALS[name]:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Sync against rsync.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cvl-bench-", dir=given.folder))
    try:
        with bench(folder, given.files) as found:
            show("unchanged", pairs(given.pairs, found.ours, lambda: found.theirs(cached=True)))

            def one() -> float:
                found.change()
                return found.ours()

            def other() -> float:
                found.change()
                return found.theirs(cached=True)

            show("one changed", pairs(given.pairs, one, other))
            show("first", pairs(given.pairs, found.fresh, lambda: found.theirs(cached=False)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
