"""Files: how long until they are ready for a run on a host, and until results are here."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench import commands
from bench.cvls import Cvl
from bench.pairs import after, in_turns
from bench.profiles import calls
from bench.values import Failed, Goal, Measure, Sample, Topic
from bench.work import Host, Work, example, host, quiet, random_file

SMALL = "examples/bench/small"
BIG = "examples/bench/big"
SIZES = (200, 1000, 3000, 8000)
RSYNC, COPY, TAR, SCP = "rsync", "rsync --copy-dest", "tar | ssh", "scp -r"
REASONS = {
    "run": "Beside bringing the files up to date, cvl gives the run a copy of all of them that is "
    "its own, looks whether somebody has changed the cache, and leaves a supervised job; rsync "
    "alone does none of that. The first time, everything is hashed before anything is sent, and "
    "written twice over there: once for the cache, once for the run.",
}
NOTE = (
    "cvl: from reading the local files to the start of a job that works on a private copy of them; "
    "the others: the whole command. All over a kept connection."
)
SPARE_NOTE = (
    "Beside each run the host makes the copy that the next one takes, at the lowest priority; the "
    "measure waits for that, outside of the clock. `no copy ready` is without."
)


@dataclass(slots=True, kw_only=True)
class Files:
    """Local files, a host that has met every side once, and fresh places there."""

    work: Work
    host: Host
    paths: list[Path] = field(default_factory=list)
    places: int = 0

    def fresh(self) -> Path:
        """Return an empty folder."""
        self.places += 1
        place = self.work.folder / "places" / str(self.places)
        place.mkdir(parents=True)
        return place

    def clear(self) -> None:
        """Remove what earlier measures have left, where that does not cost the next one."""
        if self.work.in_memory:
            shutil.rmtree(self.work.folder / "places", ignore_errors=True)

    def cvl(self, cvl: Cvl, what: str, *, first: bool = False, spare: bool = True) -> Sample:
        """Sync with one cvl, to a host that knows nothing if `first`, or has no spare copy."""
        env = self.host.env(cvl)
        base = self.work.folder / f"base{cvl.name}"
        if first:
            env, base = {**env, "CVL_STATE_DIR": str(self.fresh())}, self.fresh() / "base"
        if not spare:
            for each in base.glob("cache/*/spare"):
                shutil.rmtree(each)
        words = [self.host.name, str(base), str(self.host.repo), what]
        argv = [*cvl.python("sync_once.py"), *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(done.stderr.strip().splitlines()[-1])
        quiet(base)
        return {"s": float(done.stdout)}

    def rsync(self, *words: str) -> Sample:
        """Run rsync over the kept connection."""
        shell = shlex.join(self.host.ssh(kept=self._kept())[:-1])
        return commands.timed(["rsync", "-a", "-e", shell, *words])

    def scp(self, source: Path) -> Sample:
        """Copy a folder with scp."""
        place = f"{self.host.name}:{self.fresh()}/"
        options = ["-F", str(self.host.sshd.ssh_config), "-o", f"ControlPath={self._kept()}"]
        return commands.timed(["scp", "-q", "-r", *options, str(source), place])

    def tar(self, source: Path) -> Sample:
        """Copy a folder with tar and ssh."""
        far = shlex.join(self.host.ssh(f"tar -xf - -C {self.fresh()}", kept=self._kept()))
        return commands.timed(["sh", "-c", f"tar -cf - -C {source} . | {far}"])

    def change(self) -> None:
        """Change one file, another one each time."""
        self.places += 1
        self.paths[self.places % len(self.paths)].write_text(f"changed {self.places}\n")

    def _kept(self) -> Path:
        kept = self.host.socket(self.work.cvls[0])
        if kept is None:
            raise Failed("there is no kept connection")
        return kept


def measure(work: Work) -> Topic:
    """Measure a first sync, one without changes, one with one, a big file, and results back."""
    topic = Topic(
        name="files",
        title="Files there and back",
        question="How long until the files are ready for a run, and until its results are here?",
    )
    with host(work) as there:
        files = Files(work=work, host=there)
        files.paths = list(_made(there.repo, work.sizes.files))
        _big(there.repo, work.sizes.big_megabytes)
        example(there.repo, "results", f'cp -r {there.repo / SMALL}/. "$CVL_WORK_DIR"\n')
        _index(there.repo)
        for cvl in work.cvls:
            there.warm(cvl)
            files.cvl(cvl, SMALL)
        mirror, cache = work.folder / "mirror", work.folder / "cache"
        for place in (mirror, cache):
            files.rsync(f"{there.repo / SMALL}/", f"{there.name}:{place}/")
        for title, measures, base, goals, share, note in _questions(files, mirror, cache):
            found = in_turns(
                {name: after(files.clear, each) for name, each in measures.items()},
                rounds=work.sizes.rounds,
                seconds=work.seconds * share,
                warm=False,
            )
            topic.tables.append(found.table(title, "s", "s", base, goals, note=note))
            if base == RSYNC and COPY in found.samples:
                same = {work.cvls[0].called("run"): Goal(limit=1.25)}
                beside = "The same samples, beside what leaves a private copy of all files as well."
                topic.tables.append(
                    found.table(f"{title}, copied", "s", "s", COPY, same, note=beside)
                )
            topic.missing |= found.missing
        topic.reasons = REASONS
        if topic.missed():
            cvl = work.cvls[0]
            argv = there.run(cvl, "small")
            topic.profiles["system calls of `cvl run` without changes"] = calls(
                argv, there.env(cvl)
            )
    return topic


Question = tuple[str, dict[str, Measure], str, dict[str, Goal], float, str]


def _questions(files: Files, mirror: Path, cache: Path) -> Iterator[Question]:
    """Yield title, measures, base, goals, share of the time, and a note."""
    work, there = files.work, files.host
    small, big, count = there.repo / SMALL, there.repo / BIG, f"{work.sizes.files:,} files"
    ours = work.cvls[0].called("run")

    def bare() -> Sample:
        return files.rsync(f"{small}/", f"{there.name}:{mirror}/")

    def copied() -> Sample:
        return files.rsync(f"--copy-dest={cache}", f"{small}/", f"{there.name}:{files.fresh()}/")

    def cvls(what: str, *, first: bool = False) -> dict[str, Measure]:
        return {
            cvl.called("run"): (lambda cvl=cvl: files.cvl(cvl, what, first=first))  # type: ignore[misc]
            for cvl in work.cvls
        }

    def others(source: Path) -> dict[str, Measure]:
        return {
            RSYNC: lambda: files.rsync(f"{source}/", f"{there.name}:{files.fresh()}/"),
            SCP: lambda: files.scp(source),
            TAR: lambda: files.tar(source),
        }

    bare_run = {f"{ours} (no copy ready)": lambda: files.cvl(work.cvls[0], SMALL, spare=False)}
    again = {RSYNC: bare, COPY: copied, **cvls(SMALL), **bare_run}
    again_note = f"{NOTE} {SPARE_NOTE}"
    yield f"{count}, nothing changed", again, RSYNC, {ours: Goal(limit=1.1)}, 0.25, again_note
    edited = {name: after(files.change, each) for name, each in again.items() if name != RSYNC}
    yield f"{count}, one changed", edited, COPY, {ours: Goal(limit=1.25)}, 0.15, NOTE
    fresh = {**others(small), **cvls(SMALL, first=True)}
    yield f"{count}, for the first time", fresh, RSYNC, {ours: Goal(limit=1.1)}, 0.25, NOTE
    first = {**others(big), **cvls(BIG, first=True)}
    title = f"One file of {work.sizes.big_megabytes} MB, for the first time"
    yield title, first, RSYNC, {ours: Goal(limit=1.1)}, 0.2, NOTE
    back: dict[str, Measure] = {
        RSYNC: lambda: files.rsync(f"{there.name}:{small}/", f"{files.fresh()}/"),
        **{f"{cvl.called('fetch')}": _fetch(files, cvl) for cvl in work.cvls},
    }
    yield f"{count} of results, back", back, RSYNC, {}, 0.15, "The whole command."


def _fetch(files: Files, cvl: Cvl) -> Measure:
    """Return a measure of `cvl fetch`, the whole command, after a run that left its results."""

    def take() -> Sample:
        env = files.host.env(cvl)
        argv = files.host.run(cvl, "results", "-d")
        said = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if said.returncode:
            raise Failed(said.stderr.strip())
        run = said.stdout.strip()
        commands.wait_for(lambda: _ended(cvl, env, run))
        return commands.timed([cvl.program, "fetch", run, "-o", str(files.fresh())], env)

    return take


def _ended(cvl: Cvl, env: dict[str, str], run: str) -> bool:
    done = subprocess.run(
        [cvl.program, "ps", "--json"], env=env, capture_output=True, text=True, check=True
    )
    found = {each["id"]: each["exit_code"] for each in json.loads(done.stdout)}
    return found.get(run) is not None


def _made(repo: Path, count: int) -> Iterator[Path]:
    """Make an example with so many files in a hundred folders; yield the files."""
    random = Random(1)
    example(repo, "small", "true\n")
    for number in range(count):
        path = repo / SMALL / f"d{number % 100:02d}" / f"file-{number:05d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(random.randbytes(random.choice(SIZES)))
        yield path


def _big(repo: Path, megabytes: int) -> None:
    example(repo, "big", "true\n")
    random_file(repo / BIG / "model.bin", megabytes)


def _index(repo: Path) -> None:
    """Make a git checkout of it, as most repositories are; the index is what matters."""
    for words in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", "-C", str(repo), *words], check=True)
    shutil.rmtree(repo / ".git/objects")
    (repo / ".git/objects").mkdir()
