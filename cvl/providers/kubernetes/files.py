"""The example's files as keys of Secrets: packed, cut in pieces, with our scripts beside them.

So a Job is complete when it is made: it may wait for hours for its start, and needs nobody then.
What is too much for that is sent into its pods once they run: a pod waits for it, and whoever
starts the run waits for the pod. What arrived in part is not taken: the pod counts the bytes.
"""

from __future__ import annotations

import gzip
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from cvl.container.contents import Contents, entry_script
from cvl.container.contents import tar as tar_of
from cvl.core.errors import AuthError, CvlError, Unreachable, UsageError
from cvl.core.frozen import dataclass
from cvl.core.retry import steadily
from cvl.core.scope import Scope
from cvl.core.spec import JobSpec
from cvl.core.units import size
from cvl.providers.kubernetes import pods
from cvl.providers.kubernetes.client import Client, Object
from cvl.providers.kubernetes.job_state import JobTracker
from cvl.providers.kubernetes.manifest import CODE, COLLECT, ENTRY, MOST_SECRET, OWN
from cvl.providers.kubernetes.pod_exec import Failed, output

HERE = Path(__file__).parent
MOST = 16 << 20
"""Bytes of an example, packed: etcd, which keeps the Secrets, is made for small things."""
MOST_SENT = 2 << 30
"""Bytes that are sent through the API server, as many as come back."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The example's files: `keys` for Secrets, our scripts among them, and what is sent later.

    `archive` is what does not fit into Secrets, `size` its bytes; None where all does. `warnings`
    are about what is chosen.
    """

    keys: Mapping[str, bytes]
    warnings: tuple[str, ...] = ()
    archive: IO[bytes] | None = None
    size: int = 0


def packed(contents: Contents, spec: JobSpec) -> Packed:
    """Return the files, packed. Raises `UsageError` for too many."""
    inputs = {f"cvl/work/{path}": file.read_bytes() for path, file in spec.inputs.items()}
    scripts = {ENTRY: entry_script(HERE / ENTRY), COLLECT: (HERE / COLLECT).read_bytes()}
    tar = TemporaryFile()  # noqa: SIM115 - it goes with the last who holds it
    try:
        with gzip.GzipFile(fileobj=tar, mode="wb", mtime=0) as out:
            out.writelines(tar_of(contents.tree, contents.placed(), inputs))
        length = tar.tell()
        if length > MOST_SENT:
            raise _too_much(contents, length)
    except BaseException:
        tar.close()
        raise
    if length > MOST:
        return Packed(keys=scripts, warnings=contents.warnings, archive=tar, size=length)
    with tar:
        tar.seek(0)
        pieces = enumerate(iter(lambda: tar.read(MOST_SECRET), b""))
        code = {f"{CODE}{number:02}": piece for number, piece in pieces}
        return Packed(keys={**scripts, **code}, warnings=contents.warnings)


def send(
    client: Client, handle: Mapping[str, str], archive: IO[bytes], length: int, scope: Scope
) -> None:
    """Send to every node as its pod starts; return when all have it, or none will start.

    Raises `CvlError` where they cannot be sent, and as `scope`.
    """
    tracker, done = JobTracker(client, handle, scope.tell), set[int]()
    count, look = int(handle.get("nodes") or 1), partial(tracker.look, {})
    scope.tell("waiting", f"for the pod: {size(length)} of files are sent to it when it runs")
    for _ in scope.attempts((LOOK,)):
        state = steadily(scope.within(PATIENCE), look, passing=(Unreachable, AuthError))
        if state.over or state.gone or state.late or state.ending:
            return  # whoever follows the run tells why
        for node, pod in state.pods.items():
            if node not in done and pods.started(pod) and not pods.over(pod):
                _to(client, pod, archive, length, scope)
                done.add(node)
        if len(done) == count:
            return
    scope.checkpoint()


def _to(client: Client, pod: Object, archive: IO[bytes], length: int, scope: Scope) -> None:
    """Send to one pod, from the beginning as often as that takes."""
    command = ("/bin/sh", "-c", RECEIVE, "sh", OWN, str(length))
    for attempt in scope.attempts(PAUSES, most=len(PAUSES) + 1):
        archive.seek(0)
        blocks = _blocks(archive, length, scope)
        try:
            deque(output(client, pods.path(pod), command, feed=blocks), maxlen=0)
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


def _too_much(contents: Contents, length: int) -> UsageError:
    sizes = sorted(((entry.size, name) for name, _, entry in contents.placed()), reverse=True)
    largest = ", ".join(f"{name} ({size(count)})" for count, name in sizes[:3])
    return UsageError(
        f"the example's files are {size(length)} packed, more than the {size(MOST_SENT)} "
        "that travel to a cluster",
        "put the large ones into the image, on a volume (--volume CLAIM:/PATH) or into S3, "
        f"and name them in .cvlignore; the largest: {largest}",
    )
