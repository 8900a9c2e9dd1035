"""Results of a run on a cluster: what never began has none to lose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from cvl.core.errors import FetchError
from cvl.core.scope import Scope
from cvl.core.spec import Cause, ExitStatus, ended
from cvl.providers.kubernetes import results
from cvl.providers.kubernetes.client import Client, Object
from cvl.providers.kubernetes.job_state import JobTracker

BACK_OFF = {"waiting": {"reason": "ImagePullBackOff"}}
OVER = {"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}}
STOPPED = ended(Cause.STOPPED, run_id="r-1")


class Seen:
    """A tracker that sees these pods."""

    run_id, fates = "r-1", dict[int, Any]()

    def __init__(self, *states: Mapping[str, Any]) -> None:
        self._states = states

    def pods(self) -> Mapping[int, Object]:
        return {
            node: {
                "metadata": {"name": f"p-{node}", "deletionTimestamp": "2026-01-01T00:30:00Z"},
                "status": {
                    "phase": "Pending",
                    "containerStatuses": [{"name": "job", "state": state}],
                },
            }
            for node, state in enumerate(self._states)
        }


def fetched(into: Path, status: ExitStatus | None, *states: Mapping[str, Any]) -> list[Path]:
    tracker, client = cast("JobTracker", Seen(*states)), cast("Client", None)
    results.fetch(client, tracker, into, Scope(), status)
    return list(into.rglob("*"))


@pytest.mark.parametrize("status", [None, STOPPED])
def test_a_pod_that_cannot_get_its_image_keeps_no_result(
    status: ExitStatus | None, tmp_path: Path
) -> None:
    """Nor once it is to end: a kubelet may be busy with the image for a minute."""
    assert fetched(tmp_path, status, BACK_OFF, BACK_OFF) == []


@pytest.mark.parametrize("states", [(), (OVER,), (BACK_OFF, OVER)])
def test_results_that_were_there_are_missed(states: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="the results of r-1 are gone"):
        fetched(tmp_path, None, *states)


def test_what_was_stopped_before_its_pod_came_lacks_nothing(tmp_path: Path) -> None:
    assert fetched(tmp_path, STOPPED) == []
