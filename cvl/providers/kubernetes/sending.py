"""Sends an example's files into the pods of its Job, once they run: more than Secrets can hold.

A pod waits for them, and whoever starts the run waits for the pod. What arrived in part is not
taken: the pod counts the bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO

from cvl.core.errors import AuthError, CvlError, LostContact, Unreachable
from cvl.core.scope import Scope
from cvl.core.units import size
from cvl.providers.kubernetes import api_paths, pods
from cvl.providers.kubernetes.client import Client, Object
from cvl.providers.kubernetes.job_state import JobTracker
from cvl.providers.kubernetes.manifest import OWN
from cvl.providers.kubernetes.pod_exec import Failed, output

BLOCK, STEP = 1 << 16, 1 << 20
"""Bytes of one message; bytes after which it is told how far they are."""
LOOK = 1.0
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the attempts to send to one pod."""
PATIENCE = 600.0
"""Seconds without an answer of the API server after which nothing is sent any more."""
RECEIVE = """\
cd "$1" || exit 1
[ ! -e sent ] || exit 0
echo $$ >receiving
head -c "$2" >coming || exit 1
[ "$(wc -c <coming)" -eq "$2" ] || exit 1
mv coming sent
"""


def send(
    client: Client,
    handle: Mapping[str, str],
    archive: IO[bytes],
    length: int,
    scope: Scope,
) -> None:
    """Send to every node as its pod starts; return when all have it, or none will start.

    Raises `CvlError` where they cannot be sent, and as `scope`.
    """
    tracker, done = JobTracker(client, handle, scope.tell), set[int]()
    count, heard = int(handle.get("nodes") or 1), scope.clock.monotonic()
    scope.tell("waiting", f"for the pod: {size(length)} of files are sent to it when it runs")
    for _ in scope.attempts((LOOK,)):
        try:
            state = tracker.look({})
        except (Unreachable, AuthError) as error:
            if scope.clock.monotonic() - heard > PATIENCE:
                raise LostContact(f"lost contact with the cluster: {error}", error.hint) from error
            scope.tell("waiting", f"{error}; asking again")
            continue
        heard = scope.clock.monotonic()
        if state.over or state.gone or state.late or state.ending:
            return  # whoever follows the run tells why
        for node, pod in state.pods.items():
            if node not in done and pods.started(pod) and not pods.over(pod):
                _to(client, handle["namespace"], pod, archive, length, scope)
                done.add(node)
        if len(done) == count:
            return
    scope.checkpoint()


def _to(
    client: Client, namespace: str, pod: Object, archive: IO[bytes], length: int, scope: Scope
) -> None:
    """Send to one pod, from the beginning as often as that takes."""
    path = f"{api_paths.core('pods', namespace)}/{pod['metadata']['name']}"
    command = ("/bin/sh", "-c", RECEIVE, "sh", OWN, str(length))
    for attempt in scope.attempts(PAUSES, most=len(PAUSES) + 1):
        archive.seek(0)
        try:
            deque(output(client, path, command, feed=_blocks(archive, length, scope)), maxlen=0)
            return
        except (Unreachable, AuthError, Failed) as error:
            failure = error
            if attempt.number < len(PAUSES):
                scope.tell("waiting", f"{error}; sending again")
    scope.checkpoint()
    text = f"the example's files could not be sent into the pod: {failure}"
    raise CvlError(text, failure.hint) from failure


def _blocks(archive: IO[bytes], length: int, scope: Scope) -> Iterator[bytes]:
    sent = 0
    while block := archive.read(BLOCK):
        scope.checkpoint()
        yield block
        sent += len(block)
        if not sent % STEP:
            scope.tell("upload", f"{size(sent)} of {size(length)}")
