"""What each runner declares is there and read from there, and a new one needs one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Timer

import pytest

from cvl.cli.options import parameters
from cvl.core.errors import LostContact
from cvl.core.process import owner_of
from cvl.core.spec import Cause, ended
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.stop import _stop_one
from cvl.providers import BUILT_IN, flag_of, load, names
from cvl.providers.runner import Runner
from cvl.testing.cli_harness import Desk
from cvl.tests.test_lifecycle import Ear, Job, Toy

HANDLES = {
    "local": {"base": "/there"},
    "ssh": {"host": "there", "base": ""},
    "docker": {"host": "there", "base": ""},
    "lambda": {"machine": "m"},
    "sagemaker": {"job": "cvl-j", "region": "us-east-1", "output": "s3://bucket/runs"},
    "k8s": {"job": "cvl-j", "namespace": "default", "context": "c"},
}
"""What a run of each may have noted."""
UNGUARDED = {"sagemaker", "k8s"}
"""Those that end a job by themselves."""


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_has_its_words_and_there_are_none_besides(name: str) -> None:
    runner = load(name)
    own = {each.name for each in parameters(runner)}
    assert runner.name == name
    assert own - runner.options_help.keys() == set()
    assert runner.options_help.keys() - own == set()
    assert all(words.strip() for words in runner.options_help.values())
    assert set(runner.places) <= own
    assert set(runner.reach) <= {*own, "endpoint"}
    assert set(runner.files) <= runner.acting.keys()


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_to_be_known_of_a_run_is_known_to_who_comes_back_to_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMBDA_API_KEY", "secret_one_0123456789")
    provider = load(name).reopen({"run": "r-1", **HANDLES[name]})
    assert provider.name == name
    assert provider.guarded is (name not in UNGUARDED)
    assert provider.stop_limit >= 60
    assert provider.many_nodes is (name in UNGUARDED)


@pytest.mark.parametrize(
    ("limit", "own", "seen"), [(0.1, "", False), (30.0, "", True), (0.1, "9", True)]
)
def test_a_stop_is_waited_for_as_long_as_is_declared(
    limit: float, own: str, seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who stops a run that somebody else drives; that it took too long is no defect of ours."""
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    slow, driver = Slow(stop_limit=limit), subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr("cvl.operations.stop.reopen", lambda *_: slow)
    monkeypatch.setattr("cvl.operations.reattach.reopen", lambda *_: slow)
    ledger = Ledger(tmp_path / "state/ledger.db")
    run = Run(id="r-1", runner="slow", handle={"run": "r-1", "grace": own}, where="there")
    ledger.begin(replace(run, owner=owner_of(driver.pid)))
    ledger.advance("r-1", RunState.LAUNCHING)
    ledger.advance("r-1", RunState.RUNNING)
    heard = Ear()
    try:
        if seen:
            _stop_one(ledger.run("r-1"), 0.0, ledger, heard)
            assert "warn: r-1 is stopped" in heard.heard
        else:
            with pytest.raises(LostContact, match="r-1 was not seen to end on there"):
                _stop_one(ledger.run("r-1"), 0.0, ledger, heard)
    finally:
        driver.kill()
        driver.wait()


@dataclass
class Late(Job):
    """A job that takes its time to stop."""

    def stop(self, grace: float, cause: Cause) -> None:
        del grace
        Timer(1.0, lambda: setattr(self, "end", ended(cause, run_id="r-1"))).start()


@dataclass
class Slow(Toy):
    """A provider whose jobs do."""

    job: Job = field(default_factory=lambda: Late(end=None))


def test_a_class_of_another_package_gets_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cvl.providers._third_party", lambda: {"plain": f"{__name__}:Plain"})
    runner = load("plain")
    assert issubclass(runner, Plain)
    assert issubclass(runner, Runner)
    assert runner is load("plain")
    assert (runner.name, runner.reapable, runner.extra, list(runner.needs())) == (
        *("plain", False, None),
        [],
    )
    assert [each.name for each in parameters(runner)] == ["size"]
    assert (names()[-1], flag_of("plain")) == ("plain", "--runner plain")


class Plain:
    """What somebody else has written, who has not heard of what may be declared."""

    name = "plain"

    def run(self, example: str, preset: str, args: tuple[str, ...] = (), size: int = 3) -> int:
        del example, preset, args
        return size


TOY = """
import json, os
from decimal import Decimal
from cvl.core.interfaces import Offer
from cvl.core.spec import Resource
from cvl.providers.local import LocalRunner
from cvl.providers.needs import Check

THING = Resource(
    kind="thing", name="cvl-toy", id="1", run_id="toy-1", proven=True, deadline=1e9, owner="x"
)

class Cloud:
    name, listing_lag = "toy", 0.0
    def now(self):
        return 2e9
    def owned(self, kind=""):
        return [THING] if os.path.exists("alive") else []
    def destroy(self, resource):
        if os.path.exists("alive"):
            os.remove("alive")

class ToyRunner(LocalRunner):
    name = "toy"
    reapable = lists_offers = True
    variables = ("TOY_KEY",)
    options_help = {"size": "how large, in elephants"}
    def run(self, example, preset, args=(), *, size: int = 3, **common):
        print("of size", size, flush=True)
        return super().run(example, preset, args, **common)
    @classmethod
    def needs(cls):
        yield Check("elephant", None, "", "buy one")
    @classmethod
    def offers(cls):
        return [Offer(type="toy_1x", price_per_hour=Decimal("0.1"), gpus=1, regions=("here",))]
    @classmethod
    def owner(cls):
        return Cloud()
    @classmethod
    def timer_variables(cls, environ):
        return {"TOY_KEY": environ["TOY_KEY"]}
"""
LINE = """
import sys
from cvl import providers

line = providers.Entry("toy:ToyRunner", "--toy", "Run as a toy.")
providers.BUILT_IN = {**providers.BUILT_IN, "toy": line}

from cvl.cli import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk whose cvl has one line more in its registry."""
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys/toy.py").write_text(TOY)
    return Desk(folder=tmp_path, options=(), env={"PYTHONPATH": str(tmp_path / "toys")})


def toy(desk: Desk, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINE, *words],
        env={**desk.environment, **env},
        cwd=desk.repo,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_new_runner_is_known_everywhere_by_its_one_line(desk: Desk) -> None:
    told = toy(desk, "run", "--help").stdout
    for part in ("--toy", "Run as a toy.", "Only with --toy:", "in elephants; default: 3"):
        assert part in told, told
    ran = toy(desk, "run", "--toy", "--size", "4", "-q", "one", "sh", "echo ran")
    assert (ran.returncode, ran.stdout) == (0, "of size 4\nran\n"), ran
    assert "--size goes with --toy" in toy(desk, "run", "--size", "4", "one", "sh").stderr
    assert "- elephant: needed by --toy" in " ".join(toy(desk, "doctor").stdout.split())
    (offer,) = json.loads(toy(desk, "offers", "--json").stdout)
    assert (offer["runner"], offer["type"]) == ("toy", "toy_1x")
    (desk.repo / "alive").touch()
    asked = toy(desk, "reap", "--dry-run", TOY_KEY="k")
    assert "toy thing cvl-toy 1: its deadline was" in asked.stdout, asked
    ended = toy(desk, "reap", "-y", "--remote", "toy")
    assert (ended.returncode, (desk.repo / "alive").exists()) == (0, False), ended


FOREIGN = """
import os, subprocess
from pathlib import Path
from cvl import ExitStatus, LogChunk, Plan
from cvl.providers import base

class Job:
    def __init__(self, folder):
        self.folder = folder
        self.handle = {"folder": folder}
    def chunks(self, after=""):
        data = Path(self.folder, "out").read_bytes()[int(after or 0):]
        if data:
            yield LogChunk(data=data, cursor=str(int(after or 0) + len(data)))
    def poll(self):
        return ExitStatus(0)
    def fetch(self, into, scope):
        pass
    stop = lambda self, grace, cause: None
    discard = close = lambda self: None

class Jobs:
    name, many_nodes, secrets = "foreign", False, {}
    LAG
    def handle(self, spec):
        return {"folder": str(Path(os.environ["JOBS"], spec.run_id))}
    def plan(self, spec):
        return Plan(runner="foreign", where="abroad", request={})
    def launch(self, spec, leases, scope):
        folder = self.handle(spec)["folder"]
        os.makedirs(folder)
        source = spec.source.root / spec.source.folder
        Path(folder, "out").write_bytes(subprocess.check_output(list(spec.argv), cwd=source))
        return Job(folder)
    def attach(self, handle, tell=None):
        return Job(handle["folder"])
    def owned(self, kind=""):
        return []

class Foreign:
    name = "foreign"
    def run(self, example, preset, args=(), **common):
        return base.run(Jobs(), base.job(example, preset, args, common), common)
    @classmethod
    def reopen(cls, handle, secrets={}):
        return Jobs()
"""


def installed(folder: Path, code: str) -> Desk:
    """Return a desk where a package of somebody else's brings the runner `foreign`."""
    package = folder / "package/foreign-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[cvl.runners]\nforeign = foreign:Foreign\n")
    (package.parent / "foreign.py").write_text(code)
    env = {"PYTHONPATH": str(package.parent), "JOBS": str(folder / "jobs")}
    return Desk(folder=folder, options=("--runner", "foreign"), env=env)


def test_a_provider_of_another_package_may_leave_out_what_has_a_value_anyway(
    tmp_path: Path,
) -> None:
    desk = installed(tmp_path, FOREIGN.replace("LAG", "listing_lag = 0.0"))
    done = desk.sh("echo ran")
    assert (done.code, done.out) == (0, b"ran\n"), done.err
    left = desk.cvl("run", *desk.options, "-q", "-d", "one", "sh", "echo left")
    run_id = left.out.decode().strip()
    assert left.code == 0, left.err
    for words in (["logs", run_id], ["attach", run_id], ["stop", run_id], ["reap"]):
        after = desk.cvl(*words)
        assert (after.code, "Error" in after.err) == (0, False), (words, after.err)


def test_a_provider_that_does_not_say_what_has_to_be_said_is_told_so(tmp_path: Path) -> None:
    done = installed(tmp_path, FOREIGN.replace("LAG", "")).sh("echo ran")
    assert done.code == 125
    assert "cvl: the provider Jobs does not say its listing_lag\nhint: " in done.err, done.err


@pytest.mark.parametrize("words", [["ps"], ["run", "--local", "-q", "one", "sh", "true"]])
def test_no_other_runner_is_loaded_than_is_needed(desk: Desk, words: list[str]) -> None:
    code = f"import sys; from cvl.cli import main; main({words!r}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **desk.environment},
        cwd=desk.repo,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [each for each in done.stdout.split() if each.startswith("cvl.providers.")]
    loaded = {each.split(".")[2] for each in ours}
    others = {each.target.split(".")[1].partition(":")[0] for each in BUILT_IN.values()} - {"local"}
    assert others & loaded == set()
