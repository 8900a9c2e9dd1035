"""Brings a run's results out of its pods, while they wait for that.

The first node's land at the top, the others' in `node-N/`, as everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial, reduce
from itertools import chain
from pathlib import Path
from typing import IO

from cvl.core.errors import Blocked, CvlError, Denied, FetchError, MissingTool, UsageError, UsedUp
from cvl.core.retry import steadily
from cvl.core.scope import Scope
from cvl.core.spec import FETCH_LIMIT, Cause, ExitStatus
from cvl.core.units import elapsed, size
from cvl.host.download.archive import MAY_PASS, fetch_archive
from cvl.host.download.report import NOTHING, Landed, report
from cvl.providers.kubernetes import pods
from cvl.providers.kubernetes.client import Client, Object
from cvl.providers.kubernetes.first_pods import pods_of_run
from cvl.providers.kubernetes.job_state import JobTracker
from cvl.providers.kubernetes.manifest import COLLECT, CONTAINER, ENTRY, IN, OWN, REPO, WORKSPACE
from cvl.providers.kubernetes.pod_exec import Failed, output
from cvl.run.nodes import folder

MOST_KIB = 2 << 20
"""Results that are larger than these 2 GiB are not brought through the API server."""
BLOCK = 1 << 20
HELPED = (Denied, Failed, MissingTool, UsageError, UsedUp)
"""What a person may change while the pod still waits: a right, a program, a limit, a file."""
AT_ONCE = 8
AREAS = {
    f"{path}/"[1:].encode(): area
    for path, area in ((f"{OWN}/work", "w"), (WORKSPACE, "e"), (REPO, "r"))
}


def fetch(
    client: Client, tracker: JobTracker, into: Path, scope: Scope, status: ExitStatus | None
) -> None:
    """Bring what there is. Raises `FetchError`; may be repeated.

    What may pass is tried again until `scope` is over: once the Job is deleted there is no other
    copy. `status` is how the run ended, None where nobody has looked.
    """
    with _judged("`kubectl cp`"):
        every = steadily(scope, tracker.pods, passing=MAY_PASS)
    there = {node: pod for node, pod in every.items() if pods.started(pod)}
    alive = {node: pod for node, pod in there.items() if not pods.over(pod)}
    waiting = any(not pods.over(pod) for pod in every.values())
    if not (there or waiting) and (status is None or status.cause is Cause.EXITED):
        raise _gone(tracker.run_id)
    for node in there.keys() - alive.keys():
        _missed(tracker, node, scope)
    lost = {node for node, fate in tracker.fates.items() if fate.cause is Cause.LOST}
    for node in sorted(lost - every.keys()):
        scope.warn(f"the results of node {node} are lost with its pod")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        downloads = [
            pool.submit(_node, client, pod, into / folder(node), scope)
            for node, pod in sorted(alive.items())
        ]
    landed = [each.result() for each in downloads]
    report(scope, reduce(Landed.joined, landed, NOTHING), into, lasts=False)


def let_go(client: Client, namespace: str, run_id: str) -> None:
    """Tell a run's pods that nobody waits for their results any more. What fails is no matter."""
    _mark(client, namespace, run_id, "collected")


def claim(client: Client, namespace: str, run_id: str) -> None:
    """Tell a run's pods, before they are ended, that somebody comes for their results.

    What fails is no matter: then they wait for a shorter time.
    """
    with suppress(CvlError):
        _mark(client, namespace, run_id, "wanted")


def _mark(client: Client, namespace: str, run_id: str, mark: str) -> None:
    """Put a mark of ours into each pod of a run that has its job, or its results, in it."""
    words = ("/bin/sh", "-c", f": >{OWN}/{mark}")

    def put(pod: Object) -> None:
        with suppress(CvlError):
            deque(output(client, pods.path(pod), words), maxlen=0)

    every = pods_of_run(client, namespace, run_id)
    waiting = [each for each in every if pods.started(each) and not pods.over(each)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        deque(pool.map(put, filter(_ours, waiting)), maxlen=0)


def ask_to_end(client: Client, there: Iterable[Object]) -> bool:
    """Ask the jobs in these pods to end, and nothing beside them; return whether all were asked.

    So sidecars live until the results are collected, and cost no time of their own then.
    """
    term = ("/bin/sh", "-c", f'kill -s TERM "$(cat {OWN}/pid)"')
    try:
        for pod in there:
            deque(output(client, pods.path(pod), term), maxlen=0)
    except CvlError:
        return False
    return True


def _ours(pod: Object) -> bool:
    """Return whether a pod runs our entry script: another has nothing to wait for."""
    ours = [each for each in pod["spec"]["containers"] if each["name"] == CONTAINER]
    return any(f"{IN}/{ENTRY}" in (each.get("command") or ()) for each in ours)


def _missed(tracker: JobTracker, node: int, scope: Scope) -> None:
    """Say that a node's container has ended with its results in it."""
    fate = tracker.fates.get(node)
    if not fate or fate.cause is Cause.EXITED:
        raise _gone(tracker.run_id)
    scope.warn(f"the results of node {node} are lost: its container was ended ({fate.cause})")


def _gone(run_id: str) -> FetchError:
    return FetchError(
        f"the results of {run_id} are gone: its pod has ended, and keeps nothing",
        f"a pod waits {elapsed(FETCH_LIMIT)} for whoever follows its run; or let the job write "
        "to a volume (--volume CLAIM:/PATH) or to S3",
    )


def _node(client: Client, pod: Object, into: Path, scope: Scope) -> Landed:
    meta, bring = pod["metadata"], partial(_collected, client, pods.path(pod), scope)
    fetch_once = partial(fetch_archive, "results.tar", bring, _where, into, scope)
    with _judged(f"`kubectl cp -n {meta['namespace']} {meta['name']}:{WORKSPACE} DIR`"):
        return steadily(scope, fetch_once, passing=MAY_PASS)


@contextmanager
def _judged(by_hand: str) -> Iterator[None]:
    """Have what keeps results from coming say so: `Blocked` where a person can help."""
    try:
        yield
    except FetchError:
        raise
    except CvlError as error:
        text = f"the results could not be fetched: {error}"
        if isinstance(error, HELPED):
            hint = f"{by_hand} copies them by hand"
            raise Blocked(text, f"{error.hint}; {hint}" if error.hint else hint) from error
        raise FetchError(text, error.hint) from error


def _collected(client: Client, pod: str, scope: Scope, out: IO[bytes]) -> Failed | None:
    """Write what the pod has packed; return how that failed, if what came lacks something.

    What can be read of it all the same is worth having: one file there may be closed to us.
    """
    command = ("/bin/sh", f"{IN}/{COLLECT}", str(MOST_KIB))
    try:
        with closing(output(client, pod, command)) as packed:
            for block in _after_size(packed, scope):
                out.write(block)
                scope.heard()
                scope.checkpoint()
    except Failed as error:
        return error
    return None


def _after_size(blocks: Iterator[bytes], scope: Scope) -> Iterator[bytes]:
    """Yield what follows the first line, which tells the size. Raises `FetchError` for too much."""
    head = b""
    for block in blocks:
        head += block
        if b"\n" in head or len(head) > BLOCK:
            break
    line, _, rest = head.partition(b"\n")
    kib = int(line) if line.strip().isdigit() else 0
    if kib > MOST_KIB:
        raise Blocked(
            f"the results are {kib / (1 << 20):.1f} GiB, more than the {MOST_KIB >> 20} GiB that "
            "come through the API server",
            "`kubectl cp` copies them by hand; or let the job write them to a volume "
            "(--volume CLAIM:/PATH) or to S3",
        )
    scope.tell("fetching", size(kib << 10))
    left = MOST_KIB << 11  # a tar of many small files takes more than they do
    for block in chain([rest], blocks):
        left -= len(block)
        if left < 0:
            raise FetchError("the pod sends more than it has announced")
        yield block


def _where(name: bytes) -> tuple[str, bytes] | None:
    """Return the area of a run's folder that a member of the archive is of, and its path there."""
    for head, area in AREAS.items():
        if name.startswith(head):
            return area, name.removeprefix(head)
    return None
