"""Ends pods whose job is over and whose sidecars are not: these run for ever, or ignore TERM.

A pod's grace is as long as a job's results may have to wait; nobody waits so long for a sidecar.
It can be shortened for a pod only. So its Job, which would make another, lets go of it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from cvl.core.errors import Missing, Taken
from cvl.providers.kubernetes import check, pods
from cvl.providers.kubernetes.client import Client, Object
from cvl.providers.kubernetes.manifest import CONTAINER

GRACE = 1
"""Seconds that sidecars have to end."""
FORCED = 5.0
"""Seconds after the end of that in which a node may say that they have; old ones are deaf."""


def there(pod: Object) -> bool:
    """Return whether a pod has containers that go on beside its job."""
    spec = pod["spec"]
    beside = [each for each in spec["containers"] if each["name"] != CONTAINER]
    inits = spec.get("initContainers") or ()
    return bool(beside) or any(each.get("restartPolicy") == "Always" for each in inits)


def left(found: Iterable[Object]) -> list[Object]:
    """Return the pods whose job is over, and in which something runs all the same."""
    return [pod for pod in found if there(pod) and pods.over(pod) and _runs(pod)]


def end(client: Client, job: str, uid: str, found: Sequence[Object]) -> bool:
    """End pods of a Job that only have sidecars left; return whether they are all it has.

    `job` is where the API has the Job. Where we may not delete pods, their grace is waited for.
    Raises `CvlError` as the client does.
    """
    ours = left(found)
    alive = [pod for pod in found if not pods.over(pod)]
    namespace = str(found[0]["metadata"]["namespace"]) if found else ""
    if not ours or alive or not check.may(client, namespace, ("", "pods", "delete")):
        return False
    with suppress(Missing, Taken):
        if not client.get(job)["metadata"].get("deletionTimestamp"):
            client.delete(job, uid, "Orphan")
    for pod in ours:
        meta = pod["metadata"]
        with suppress(Missing, Taken):
            client.delete(pods.path(pod), str(meta["uid"]), grace=_grace(client, pod))
    return True


def _grace(client: Client, pod: Object) -> int:
    due = pod["metadata"].get("deletionTimestamp")
    return 0 if due and pods.epoch(str(due)) + FORCED < client.now() else GRACE


def _runs(pod: Object) -> bool:
    status = pod.get("status", {})
    every = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return any("running" in (each.get("state") or {}) for each in every)
