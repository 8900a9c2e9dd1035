"""`cvl reap`: what should be over is ended, from here or elsewhere; nothing else is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from cvl.cleanup.leases import Leases
from cvl.cleanup.until_gone import end
from cvl.core.errors import StillOpen
from cvl.core.interfaces import Offer, Order
from cvl.core.paths import ledger_file
from cvl.core.process import me
from cvl.core.scope import Scope
from cvl.core.spec import Cause, Resource, ended, new_run_id
from cvl.ledger import Ledger, Run, RunState
from cvl.operations import reap_findings
from cvl.providers.lambda_cloud.api import LambdaAPI
from cvl.providers.lambda_cloud.cloud import LambdaCloud, api
from cvl.rental.keys import RunKeys
from cvl.testing.lambda_cloud import FAULTS, Settings
from cvl.testing.lambda_cloud import LambdaCloud as FakeCloud
from cvl.testing.machine import possible
from cvl.tests.test_lambda_cloud import until

OFFER = Offer(type="gpu_1x_a10", price_per_hour=Decimal("0.75"), gpus=1)
HOUR = 3600.0


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    with FakeCloud(Settings(request_interval=0, launch_interval=0, boot_seconds=0)) as cloud:
        settled(monkeypatch, tmp_path, cloud)
        yield cloud
        assert not cloud.violations


def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cloud: FakeCloud) -> None:
    values = {
        **cloud.env,
        "CVL_STATE_DIR": str(tmp_path / "state"),
        "LAMBDA_API_RPS": "1000",
        "LAMBDA_LAUNCH_INTERVAL": "0",
        "LAMBDA_SETTLE": "0.2",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def rented(ledger: Ledger, tmp_path: Path, *, left: float = HOUR, owner: str | None = None) -> Run:
    """Rent a machine for a run of `ledger`, whose deadline is `left` seconds away."""
    cloud, run_id = LambdaCloud(api()), new_run_id("reaped")
    run = ledger.begin(Run(id=run_id, runner="lambda", owner=me() if owner is None else owner))
    ledger.advance(run_id, RunState.LAUNCHING)
    keys = RunKeys.made(tmp_path / run_id)
    order = Order(
        run_id=run_id,
        owner=ledger.id(),
        offer=OFFER,
        region="us-west-1",
        deadline=by_its_clock(cloud) + left,
        host_key=keys.host_key,
        host_public_key=keys.host_public_key,
        public_key=keys.public_key,
    )
    scope = Scope(seconds=20)
    cloud.rent(order, Leases(ledger, run_id, cloud, scope), scope)
    return run


def by_its_clock(cloud: LambdaCloud | LambdaAPI) -> float:
    now = cloud.now()
    assert now is not None
    return now


def elsewhere(tmp_path: Path) -> Ledger:
    """Return the ledger of another machine."""
    return Ledger(tmp_path / "elsewhere" / "ledger.db")


def names(found: list[reap_findings.Finding]) -> list[tuple[str, str]]:
    return sorted((each.kind, each.run_id) for each in found)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "cvl", *words]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


def test_from_another_machine_what_is_past_its_deadline_is_ended_by_tags_alone(
    fake: FakeCloud, tmp_path: Path
) -> None:
    late = rented(elsewhere(tmp_path), tmp_path, left=-1)
    alive = rented(elsewhere(tmp_path), tmp_path, left=HOUR)
    here = Ledger(ledger_file())
    owner = LambdaCloud(api())
    found = reap_findings.overdue(owner, here)
    assert names(found) == [("instance", late.id)]
    assert "its deadline was" in found[0].why
    end(owner, [each.resource for each in found if each.resource], Scope(seconds=20))
    assert [each.name for each in fake.alive()] == [f"cvl-{alive.id}"]


def test_what_is_not_provably_ours_is_never_touched(fake: FakeCloud, tmp_path: Path) -> None:
    account = api()
    account.once("/ssh-keys", {"name": "cvl-laptop", "public_key": made(tmp_path / "a")})
    account.once("/ssh-keys", {"name": "somebody", "public_key": made(tmp_path / "b")})
    body = {
        "region_name": "us-west-1",
        "instance_type_name": "gpu_1x_a10",
        "ssh_key_names": ["somebody"],
        "name": "cvl-but-not-ours",
        "tags": [{"key": "team", "value": "vision"}],
    }
    account.once("/instance-operations/launch", body)
    ours = f"cvl-{new_run_id('one', now=by_its_clock(account) - 3 * HOUR)}"
    account.once("/instance-operations/launch", {**body, "name": ours})  # but not our tag
    over, ledger = new_run_id("over"), Ledger(ledger_file())
    ledger.begin(Run(id=over, runner="lambda", owner=me()))
    assert ledger.finish(over, ended(Cause.STOPPED, run_id=over))
    account.once("/instance-operations/launch", {**body, "name": f"cvl-{over}"})
    assert reap_findings.overdue(LambdaCloud(account), ledger) == []
    assert command("reap", "-y").returncode == 0
    assert len(fake.alive()) == 3
    assert len(fake.keys()) == 2


def made(folder: Path) -> str:
    return RunKeys.made(folder).public_key


def test_a_key_without_its_machine_is_stray_once_it_is_old(fake: FakeCloud, tmp_path: Path) -> None:
    account, public_key = api(), made(tmp_path / "keys")
    now = by_its_clock(account)
    old = new_run_id("old", now=now - 3 * HOUR)
    young = new_run_id("young", now=now - 60)
    for run_id in (old, young):
        account.once("/ssh-keys", {"name": f"cvl-{run_id}", "public_key": public_key})
    found = reap_findings.overdue(LambdaCloud(account), Ledger(ledger_file()))
    assert names(found) == [("ssh-key", old)]
    assert command("reap", "-y").returncode == 0
    assert fake.keys() == [f"cvl-{young}"]


def test_a_key_of_a_machine_that_lives_is_left_alone(fake: FakeCloud, tmp_path: Path) -> None:
    rented(elsewhere(tmp_path), tmp_path)
    assert reap_findings.overdue(LambdaCloud(api()), Ledger(ledger_file())) == []
    assert len(fake.keys()) == 1


def test_our_own_ledger_says_that_a_run_is_over(fake: FakeCloud, tmp_path: Path) -> None:
    """A line closed too early, or a machine that turned up late: it is over all the same."""
    here = Ledger(ledger_file())
    run = rented(here, tmp_path)
    for lease in here.leases(run.id, open_only=True):
        here.released(lease)
    assert here.finish(run.id, ended(Cause.STOPPED, run_id=run.id))
    owner = LambdaCloud(api())
    found = reap_findings.overdue(owner, here)
    assert names(found) == [("instance", run.id), ("ssh-key", run.id)]
    assert all("has ended" in each.why for each in found)
    assert command("reap", "-y").returncode == 0
    assert (fake.alive(), fake.keys()) == ([], [])


def test_a_run_whose_driver_lives_is_left_alone(fake: FakeCloud, tmp_path: Path) -> None:
    here = Ledger(ledger_file())
    rented(here, tmp_path)
    assert reap_findings.abandoned(here) == []
    assert command("reap", "-y").returncode == 0
    assert len(fake.alive()) == 1


def dead_owner() -> str:
    """Return the owner string of a process of this boot that has ended."""
    script = "from cvl.core.process import me; print(me())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def abandoned(tmp_path: Path) -> Run:
    here = Ledger(ledger_file())
    run = rented(here, tmp_path)
    assert here.take(run.id, dead_owner(), me())
    return run


def test_a_run_whose_driver_is_dead_is_brought_to_its_end(fake: FakeCloud, tmp_path: Path) -> None:
    run = abandoned(tmp_path)
    here = Ledger(ledger_file())
    assert [each.run_id for each in reap_findings.abandoned(here)] == [run.id]
    done = command("reap", "-y")
    assert done.returncode == 0, done.stderr
    assert f"ended run {run.id}" in done.stderr
    assert (fake.alive(), fake.keys()) == ([], [])
    after = here.run(run.id)
    assert after.state is RunState.ENDED
    assert after.cost is not None
    assert not here.leases(run.id, open_only=True)


def test_every_command_says_what_nobody_looks_after(fake: FakeCloud, tmp_path: Path) -> None:
    run = abandoned(tmp_path)
    done = command("ps")
    assert f"nobody looks after {run.id} any more" in done.stderr
    assert "cvl reap" in done.stderr
    assert "nobody looks after" not in done.stdout
    command("reap", "-y")
    assert "nobody looks after" not in command("ps").stderr
    assert not fake.alive()


def test_a_dry_run_lists_with_prices_and_ends_nothing(fake: FakeCloud, tmp_path: Path) -> None:
    run = rented(elsewhere(tmp_path), tmp_path, left=-1)
    done = command("reap", "--dry-run", "--json")
    assert done.returncode == 0
    (row,) = json.loads(done.stdout)
    assert row["run"] == run.id
    assert row["price_per_hour"] == "0.75"
    assert "at $0.75/h" in command("reap", "--dry-run").stdout
    assert len(fake.alive()) == 1


def test_without_a_terminal_it_wants_a_yes(fake: FakeCloud, tmp_path: Path) -> None:
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    done = command("reap")
    assert done.returncode == 2
    assert "-y" in done.stderr
    assert len(fake.alive()) == 1


def test_deadlines_are_judged_by_the_provider_s_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's clock is two hours behind: what is late is late all the same."""
    settings = Settings(request_interval=0, launch_interval=0, boot_seconds=0, date_offset=2 * HOUR)
    with FakeCloud(settings) as cloud:
        settled(monkeypatch, tmp_path, cloud)
        owner = LambdaCloud(api())
        assert by_its_clock(owner) - time.time() > 1.9 * HOUR
        late = rented(elsewhere(tmp_path), tmp_path, left=-1)
        rented(elsewhere(tmp_path), tmp_path, left=HOUR)
        assert names(reap_findings.overdue(owner, Ledger(ledger_file()))) == [("instance", late.id)]


def test_without_the_provider_s_clock_no_deadline_is_judged(
    fake: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's clock is far ahead, and replies carry no `Date`: another's machine lives."""
    other = rented(elsewhere(tmp_path), tmp_path)
    here = Ledger(ledger_file())
    over = rented(here, tmp_path)
    for lease in here.leases(over.id, open_only=True):
        here.released(lease)
    assert here.finish(over.id, ended(Cause.STOPPED, run_id=over.id))
    fake.inject(FAULTS["no-date"])
    monkeypatch.setattr(time, "time", lambda clock=time.time: clock() + 30 * HOUR)
    owner = LambdaCloud(api())
    assert owner.now() is None
    assert {run_id for _, run_id in names(reap_findings.overdue(owner, here))} == {over.id}
    monkeypatch.undo()
    settled(monkeypatch, tmp_path, fake)
    done = command("reap", "-y")
    assert done.returncode == 125
    assert "does not say what time it is" in done.stderr
    assert [each.name for each in fake.alive()] == [f"cvl-{other.id}"]


def test_the_200_of_a_terminate_is_not_believed(fake: FakeCloud, tmp_path: Path) -> None:
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    fake.inject(FAULTS["terminate-ignored"])
    assert command("reap", "-y").returncode == 0
    assert not fake.alive()


def test_an_outage_is_said_and_nothing_is_forgotten(fake: FakeCloud, tmp_path: Path) -> None:
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    owner = LambdaCloud(api())
    (finding,) = reap_findings.overdue(owner, Ledger(ledger_file()))
    fake.inject(FAULTS["outage-500"])
    assert finding.resource is not None
    with pytest.raises(StillOpen, match="instance"):
        end(owner, [finding.resource], Scope(seconds=1))
    fake.clear_faults()
    assert command("reap", "-y").returncode == 0
    assert not fake.alive()


def test_without_a_key_only_the_ledger_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("LAMBDA_API_KEY", raising=False)
    done = command("reap")
    assert (done.returncode, done.stdout) == (0, "nothing to reap\n")


def test_a_wrong_key_is_said_with_exit_code_125(
    fake: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMBDA_API_KEY", "secret_wrong")
    done = command("reap", "-y")
    assert done.returncode == 125
    assert "Authentication failed" in done.stderr
    assert "secret_wrong" not in done.stderr
    assert not fake.alive()


@pytest.mark.parametrize(
    ("run_id", "age"),
    [("a-1124-043013-0123456789", 3600.0), ("x-1231-235959-0123456789", 3600.0)],
)
def test_a_run_id_tells_when_it_was_made(run_id: str, age: float) -> None:
    made_at = reap_findings.stamp(run_id, time.time())
    assert made_at is not None
    assert made_at <= time.time()
    again = reap_findings.stamp(run_id, made_at + age)
    assert again == made_at


def test_a_name_without_a_time_is_never_old() -> None:
    assert reap_findings.stamp("my-own-key", time.time()) is None
    assert reap_findings.stamp("x-9999-999999-0123456789", time.time()) is None


def test_a_resource_without_deadline_or_run_may_live() -> None:
    unknown = Resource(kind="instance", name="x", id="1", run_id="x")
    assert reap_findings.reason(unknown, None, "me", time.time(), alone=True) == ""


@pytest.mark.skipif(bool(possible()), reason=possible() or "machines can be had")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("reboots", [False, True])
def test_a_machine_ends_itself_at_its_deadline_when_everybody_else_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reboots: bool
) -> None:
    monkeypatch.setattr("cvl.providers.lambda_cloud.deadline.LOOK", 1)
    settings = Settings(launch_interval=0, boot_seconds=0, hosts="machine")
    with FakeCloud(settings) as cloud:
        settled(monkeypatch, tmp_path, cloud)
        monkeypatch.setenv("LAMBDA_API_RPS", "1")
        lambda_cloud = LambdaCloud(api(), self_terminate=True)
        keys, run_id = RunKeys.made(tmp_path / "keys"), new_run_id("alone")
        order = Order(
            run_id=run_id,
            owner="nobody",
            offer=OFFER,
            region="us-west-1",
            deadline=by_its_clock(lambda_cloud) + 4,
            host_key=keys.host_key,
            host_public_key=keys.host_public_key,
            public_key=keys.public_key,
        )
        shown = json.dumps(lambda_cloud.request(order))
        assert os.environ["LAMBDA_API_KEY"] not in shown
        assert "<redacted:api_key>" in shown
        ledger = elsewhere(tmp_path)
        ledger.begin(Run(id=run_id, runner="lambda", owner=me()))
        ledger.advance(run_id, RunState.LAUNCHING)
        scope = Scope(seconds=20)
        lambda_cloud.rent(order, Leases(ledger, run_id, lambda_cloud, scope), scope)
        (instance,) = cloud.alive()
        if reboots:
            until(lambda: instance.host.ready_at is not None, 90)
            instance.host.reboot()
        until(lambda: not cloud.alive(), 90)
        (line,) = cloud.bill().lines
        assert line.seconds >= 1


@pytest.mark.parametrize("code", ["import nothing_such", "raise SystemExit(3)", "1 +", "x = 1"])
def test_a_package_whose_runner_does_not_load_keeps_no_other_run_from_its_end(
    fake: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Not even that of the first run in the ledger: reap, ps and stop deal with each by itself."""
    site = tmp_path / "site"
    (site / "other-1.0.dist-info").mkdir(parents=True)
    (site / "other-1.0.dist-info" / "METADATA").write_text("Name: other\nVersion: 1.0\n")
    entry = "[cvl.runners]\nother = other_runner:Other\n"
    (site / "other-1.0.dist-info" / "entry_points.txt").write_text(entry)
    (site / "other_runner.py").write_text(code + "\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    here, dead = Ledger(ledger_file()), dead_owner()
    stuck = here.begin(Run(id=new_run_id("stuck"), runner="other", owner=dead))
    here.advance(stuck.id, RunState.LAUNCHING)
    here.advance(stuck.id, RunState.RUNNING)
    assert here.take(rented(here, tmp_path).id, dead, me())
    done = command("reap", "-y")
    assert "defect" not in done.stderr
    assert not fake.alive(), done.stderr
    done = command("stop", stuck.id)
    assert done.returncode == 125
    assert "cannot be loaded" in done.stderr
    assert command("ps", "-a").returncode == 0


@pytest.mark.parametrize("output", [">/dev/full", "| true", ">&-"])
@pytest.mark.parametrize("words", ["", "--json"])
def test_what_is_found_ends_though_nobody_can_read_what_that_is(
    fake: FakeCloud, tmp_path: Path, output: str, words: str
) -> None:
    """As by cron, with its log on a full disk."""
    abandoned(tmp_path)
    script = f"exec 2>&1; sleep 1; {sys.executable} -m cvl reap -y {words} {output}"
    subprocess.run(["bash", "-c", script], capture_output=True, timeout=60, check=False, text=True)
    assert not fake.alive()
    abandoned(tmp_path)
    script = f"{sys.executable} -m cvl reap --dry-run {words} >/dev/full"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == 125
    assert len(fake.alive()) == 1
