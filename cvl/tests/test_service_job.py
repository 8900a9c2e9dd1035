"""Contact with a service that runs a job: for how long it is waited for, and from when on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from cvl.container.service_job import PATIENCE, ServiceJob
from cvl.core.errors import CvlError, LostContact, Unreachable
from cvl.core.spec import LogChunk
from cvl.providers.aws.session import Account
from cvl.providers.kubernetes import job as kubernetes
from cvl.providers.kubernetes.client import Client, Object
from cvl.providers.kubernetes.job_state import JobState
from cvl.providers.sagemaker import job as sagemaker
from cvl.run.nodes import NodeEnd
from cvl.tests.fakes import FakeClock

HANDLE = {"run": "r", "namespace": "n", "job": "j", "nodes": "1", "output": "s3://b/p"}


class Service:
    """Anything that has a clock, and a job that ends when its output was read.

    `broken`: how many questions fail behind the first piece of that output.
    """

    def __init__(self, broken: float) -> None:
        self.clock, self._broken, self._read = FakeClock(), broken, False

    def ask(self) -> bool:
        """Return whether the job is over."""
        if self._read and self._broken > 0:
            self._broken -= 1
            raise Unreachable("the connection broke")
        return self._read

    def chunk(self) -> Iterator[LogChunk]:
        if not self._read:
            self._read = True
            yield LogChunk(data=b"a line\n", cursor="c")

    def answer(self) -> Mapping[str, Any]:
        return {"TrainingJobStatus": "Completed" if self.ask() else "InProgress"}


class Output:
    """The output of a job, in place of either reader."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.endings: Any = {}

    def take(self, _seconds: float) -> Iterator[LogChunk]:
        return self._service.chunk()

    def look(self) -> Iterator[LogChunk]:
        yield from self._service.chunk()
        self._service.ask()

    def follow(self, _pods: object, *, gone: bool) -> None:
        del gone

    def complete(self, _nodes: int = 1) -> bool:
        return True

    def heard(self, _nodes: int) -> bool:
        return False

    def close(self) -> None:
        pass


def on_kubernetes(service: Service, monkeypatch: pytest.MonkeyPatch) -> ServiceJob:
    job = kubernetes.KubeJob(cast("Client", service), HANDLE, answered=True)

    def look(_endings: object) -> JobState:
        fates = {0: NodeEnd(node=0, code=0)} if service.ask() else {}
        there: Object = {"metadata": {}}
        return JobState(nodes=1, job=there, pods={}, fates=fates, known=True)

    monkeypatch.setattr(job._tracker, "look", look)
    monkeypatch.setattr(kubernetes, "Logs", lambda *_more, **_options: Output(service))
    return job


def on_sagemaker(service: Service, monkeypatch: pytest.MonkeyPatch) -> ServiceJob:
    job = sagemaker.TrainingJob(cast("Account", service), HANDLE, answered=True)
    monkeypatch.setattr(job, "_describe", service.answer)
    monkeypatch.setattr(sagemaker, "LogReader", lambda *_more: Output(service))
    return job


@pytest.mark.parametrize("make", [on_kubernetes, on_sagemaker])
def test_a_reader_that_paused_for_long_has_lost_no_contact(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pager that waits, or Ctrl-Z: then the connection is gone, and the next one is good."""
    service = Service(broken=1)
    got = b""
    for chunk in make(service, monkeypatch).chunks():
        got += chunk.data
        service.clock.now += 2 * PATIENCE
    assert got == b"a line\n"


@pytest.mark.parametrize("make", [on_kubernetes, on_sagemaker])
def test_contact_is_lost_once_nothing_was_answered_for_long(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(broken=1e9)
    began = service.clock.now
    with pytest.raises(LostContact, match=r"lost contact with .*: the connection broke") as caught:
        list(make(service, monkeypatch).chunks())
    assert "`cvl attach r` follows it again" in cast("CvlError", caught.value).hint
    assert PATIENCE < service.clock.now - began < PATIENCE + 60
