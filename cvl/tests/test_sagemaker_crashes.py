"""cvl is killed at every request of a run on SageMaker; one `cvl reap`, and nothing is left."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from cvl.ledger import Ledger, RunState
from cvl.testing.cli_harness import Client, wait_for
from cvl.testing.sagemaker import AwsCloud, Settings
from cvl.testing.sagemaker.cloud import missing
from cvl.tests.clouds import TOKEN, desk, holding, keep_versions, versions

SHARES = 2
WRITES = {"PutObject", "CreateTrainingJob", "StopTrainingJob", "AddTags", "DeleteObjects"}
"""What changes something: there the client also dies when it is done and not yet answered."""
WAITING, QUICK = Settings(start=300.0), Settings()
GIVEN = ("-e", f"HF_TOKEN={TOKEN}")
LOOKS = 3
"""Looks at a job that goes on; one is like the other."""
READS = {"DescribeTrainingJob", "DescribeLogStreams", "GetLogEvents", "ListTrainingJobs"}
"""What is asked again and again: how often depends on the clock."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[AwsCloud]:
    if why := missing():
        pytest.skip(why)
    with AwsCloud() as running:
        yield running


class Trial:
    """One run of cvl, killed at a request: the `number`-th of an operation, before or after it."""

    def __init__(self, cloud: AwsCloud, folder: Path, settings: Settings) -> None:
        self.cloud, self.seen = cloud, dict[str, int]()
        self.clients: list[Client] = []
        folder.mkdir()
        cloud.reset(settings)
        keep_versions(cloud, "Enabled")
        self.calling = desk(folder, cloud)

    def run(self, point: tuple[str, int, str], *, interrupt: bool) -> bool:
        """Run until the end or the kill; return whether it was killed."""
        self.cloud.wire.hook = self._hook(point, interrupt=interrupt)
        words = ("run", *self.calling.options, *GIVEN, "one", "sh", "true")
        with self.calling.start(*words) as client:
            self.clients.append(client)
            wait_for(lambda: client.process.poll() is not None)
        self.cloud.wire.hook = lambda _operation, _moment: None
        return client.process.returncode == -signal.SIGKILL

    def left(self) -> list[str]:
        """Reap; return what is there all the same."""
        reaped = self.calling.cvl("reap", "-y")
        ledger = Ledger(self.calling.state / "ledger.db")
        found = [job.name for job in self.cloud.going_on()]
        found += [key for key in versions(self.cloud) if "cvl-input" in key]
        found += holding(self.cloud)
        found += [f"{run.id} {run.state}" for run in ledger.runs() if run.state != RunState.ENDED]
        found += [f"{line.kind} {line.state}" for line in ledger.leases(open_only=True)]
        found += self.cloud.wire.violations
        return found + ([reaped.err] if found or reaped.code else [])

    def _hook(self, point: tuple[str, int, str], *, interrupt: bool) -> Callable[[str, str], None]:
        def hook(operation: str, moment: str) -> None:
            if moment == "before":
                self.seen[operation] = self.seen.get(operation, 0) + 1
            client = self.clients[0] if self.clients else None
            if client and (operation, self.seen[operation], moment) == point:
                client.process.kill()
                client.process.wait(10)
            looked = (operation, self.seen[operation], moment)
            if client and interrupt and looked == ("DescribeTrainingJob", LOOKS, "after"):
                client.signal(signal.SIGINT)

        return hook


def points(seen: dict[str, int]) -> list[tuple[str, int, str]]:
    """Return every point of a run that makes so many requests."""
    found = []
    for operation, number in seen.items():
        most = min(number, LOOKS) if operation in READS else number
        moments = ("before", "after") if operation in WRITES else ("before",)
        found += [(operation, n + 1, moment) for n in range(most) for moment in moments]
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("interrupt", [False, True], ids=["to its end", "stopped"])
def test_nothing_is_left_wherever_the_client_is_killed(
    interrupt: bool, share: int, cloud: AwsCloud, tmp_path: Path
) -> None:
    """A job that is stopped waits for its instance; the other has ended when it is looked at."""
    settings, number = WAITING if interrupt else QUICK, count()
    whole = Trial(cloud, tmp_path / "whole", settings)
    assert not whole.run(("", 0, ""), interrupt=interrupt)
    assert whole.left() == []
    killed = []
    for point in points(whole.seen)[share::SHARES]:
        trial = Trial(cloud, tmp_path / str(next(number)), settings)
        killed.append(trial.run(point, interrupt=interrupt))
        assert trial.left() == [], point
    assert sum(killed) > len(killed) * 0.8, "points that no run reaches prove nothing"
    assert {"CreateTrainingJob", "PutObject", "DeleteObjects"} <= whole.seen.keys()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(SHARES))
def test_a_job_that_would_go_on_is_ended_by_reap(
    share: int, cloud: AwsCloud, tmp_path: Path
) -> None:
    """Killed on the way to the job, or while it goes on."""
    at = [("PutObject", n, moment) for n in (1, 2, 3, 4) for moment in ("before", "after")]
    at += [("CreateTrainingJob", 1, "before"), ("CreateTrainingJob", 1, "after")]
    at += [(name, 2, "before") for name in ("DescribeTrainingJob", "DescribeLogStreams")]
    for index, point in enumerate(at[share::SHARES]):
        trial = Trial(cloud, tmp_path / str(index), WAITING)
        assert trial.run(point, interrupt=False), point
        assert trial.left() == [], point
        assert all(job.status == "Stopped" for job in cloud.jobs.values())
