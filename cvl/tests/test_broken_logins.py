"""Runs of several providers, the login of one broken: each is dealt with by itself, and named."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cvl.core.paths import ledger_file
from cvl.core.process import me
from cvl.core.spec import Resource, new_run_id
from cvl.ledger import Ledger, Run, RunState
from cvl.testing.lambda_cloud import LambdaCloud as FakeCloud
from cvl.tests.test_broken_aws import marked
from cvl.tests.test_reap import dead_owner, rented
from cvl.tests.test_reap_broken import (
    command,
    everything,
    fails,
    fake,  # noqa: F401 - a fixture
    hanging_both,
    home,  # noqa: F401 - a fixture
    kubeconfig,
    nulls,
    plugin,
)

SOON = 25.0
HANDLES = {
    "sagemaker": {"region": "us-east-1", "output": "s3://bucket/x", "nodes": "1"},
    "k8s": {"context": "c", "namespace": "default", "nodes": "1"},
}


def failing_both(home: Path) -> None:  # noqa: F811
    """Two programs that give no credentials: what nobody can know before they are asked."""
    fails(home)
    kubeconfig(home, exec=plugin(home / "fails"))


def running(runner: str) -> Run:
    """Note a run whose job goes on somewhere and whose driver is dead."""
    ledger, run_id = Ledger(ledger_file()), new_run_id(runner)
    job = f"cvl-{run_id}"
    handle = {"run": run_id, "job": job, **HANDLES[runner]}
    ledger.begin(Run(id=run_id, runner=runner, owner=me(), handle=handle, results="/nonexistent"))
    ledger.advance(run_id, RunState.LAUNCHING)
    kind = {"sagemaker": "training-job", "k8s": "job"}[runner]
    resource = Resource(kind=kind, name=job, run_id=run_id)
    lease = ledger.intend(run_id, resource, provider=runner, by=me())
    assert lease is not None
    ledger.confirm(lease, f"default/{job}/uid")
    ledger.advance(run_id, RunState.RUNNING)
    assert ledger.take(run_id, dead_owner(), me())
    return ledger.run(run_id)


@pytest.mark.parametrize("words", ["attach", "fetch", "logs -f", "stop"])
@pytest.mark.parametrize("broken", [everything, failing_both])
@pytest.mark.parametrize("runner", HANDLES)
def test_a_run_whose_login_is_broken_says_so_at_once(
    words: str,
    runner: str,
    broken: Callable[[Path], None],
    fake: FakeCloud,  # noqa: F811
    home: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    broken(home)
    run, began = running(runner), time.monotonic()
    done = command(*words.split(), run.id)
    assert time.monotonic() - began < SOON, done.stderr
    assert done.returncode in {2, 125}, done.stderr
    assert "defect" not in done.stderr
    said = "must be a list" if (runner, broken) == ("k8s", everything) else "failed: oops"
    assert said in done.stderr, done.stderr
    after = Ledger(ledger_file()).run(run.id)
    assert after.state is not RunState.ENDED
    assert not marked(tmp_path)  # nobody goes on trying


def test_ps_shows_all_whoever_cannot_be_asked(
    fake: FakeCloud,  # noqa: F811
    home: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    everything(home)
    ids = [running(runner).id for runner in HANDLES]
    ids.append(rented(Ledger(ledger_file()), tmp_path).id)
    for broken in (everything, hanging_both):
        broken(home)
        began = time.monotonic()
        done = command("ps", "-a")
        assert time.monotonic() - began < SOON
        assert done.returncode == 0
        assert all(each in done.stdout for each in ids)
        assert "defect" not in done.stderr


@pytest.mark.parametrize("broken", [fails, nulls, everything])
def test_stop_stops_the_others(
    broken: object,
    fake: FakeCloud,  # noqa: F811
    home: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    everything(home)
    runs = [running(runner) for runner in HANDLES]
    here = Ledger(ledger_file())
    late = rented(here, tmp_path)
    assert here.take(late.id, dead_owner(), me())
    began = time.monotonic()
    done = command("stop", *(each.id for each in runs), late.id)
    assert fake.alive() == [], done.stderr
    assert time.monotonic() - began < 2 * SOON
    assert done.returncode == 125
    assert "failed: oops" in done.stderr
    assert "must be a list" in done.stderr
    assert here.run(late.id).state is RunState.ENDED
    assert all(here.run(each.id).state is not RunState.ENDED for each in runs)
    assert "defect" not in done.stderr


def test_doctor_has_a_line_for_each(fake: FakeCloud, home: Path) -> None:  # noqa: F811
    everything(home)
    done = command("doctor")
    assert "failed: oops" in done.stdout
    assert "must be a list" in done.stdout
    assert "LAMBDA_API_KEY: set" in done.stdout


def test_offers_ask_only_who_rents(fake: FakeCloud, home: Path) -> None:  # noqa: F811
    everything(home)
    done = command("offers")
    assert (done.returncode, done.stderr) == (0, "")
    assert "gpu_1x_a10" in done.stdout
