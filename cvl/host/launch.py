"""Starts one job on one machine: files, scripts and secrets travel in the stream that starts it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cvl.core.digest import blake2b
from cvl.core.errors import HostError, LostContact, NotConnected, NotReady, Silent, Unreachable
from cvl.core.frozen import dataclass
from cvl.core.octets import octets
from cvl.core.scope import Cancelled, DeadlineExceeded, Scope
from cvl.core.spec import IN_DOUBT, Build, JobSpec
from cvl.core.units import size
from cvl.host.identity import WHOSE, told
from cvl.host.job import RemoteJob
from cvl.host.rpc import FarSide, Headers
from cvl.host.stream import Answer, Stream
from cvl.host.upload.tree_sync import TreeSync

ATTEMPTS = 12
"""Requests that one start may take: install, bundle, tree, and connections that break."""
PAUSES = (0.2, 1.0, 3.0, 8.0, 15.0)
"""Seconds until another one where the connection has broken; the last one repeats."""
EARLY = 4
"""Times that a connection is tried again while it is certain that nothing can run there."""
FINISH_LIMIT = 10.0
ASIDE = 8.0
"""Seconds without an answer after which it is asked whether any command is heard there."""
SEND_LIMIT = 120.0
"""Seconds that a machine may take to log us in and ask for a job's files."""
START_LIMIT = 600.0
"""Seconds that a machine may take to unpack what was sent and start the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a machine is to be prepared, whatever the job.

    `in_place`: the job works in the example's own folder there, no files travel. `bundle` is
    about cvl itself there: `no` (not needed), `install` (put it there), `require` (it must be).
    `again`: other runs may follow on that machine.
    """

    in_place: bool = False
    bundle: str = "no"
    again: bool = True


def start(
    far: FarSide, spec: JobSpec, handle: Mapping[str, str], setup: Setup, scope: Scope
) -> RemoteJob:
    """Start the job; return it with the stream that already follows it.

    The far side asks for the job's files, and starts it only once it has their last piece: until
    that is handed over (`Stream.whole`) nothing can run, and whatever goes wrong is raised as it
    is, at once or after `EARLY` attempts. From then on nobody can say, but a further attempt: the
    far side starts a run id only once. When somebody asks to stop while nobody can say, the job is
    returned as if it was started: stopping it then finds out, or sees to it that it never is.
    Raises `HostError` when nothing was started, `LostContact` when nobody can say.
    """
    cargo, broken, doubt = Cargo(far, spec, setup, handle.get("seal", "")), 0, False
    stream: Stream | None = None
    try:
        scope.checkpoint()
        for attempt in scope.attempts(PAUSES, most=ATTEMPTS):
            stream = None
            try:
                stream = far.begin("start", cargo.headers())
                if _begun(far, stream, cargo, scope):
                    cargo.arrived(stream, scope)
                    whole = {**handle, **told(stream.answers())}
                    job = RemoteJob(far, whole, started=stream, clock=scope.clock, tell=scope.tell)
                    stream = None
                    return job
                cargo.refused(stream, scope)
                attempt.at_once()
            except HostError as error:
                doubt, broken = doubt or _in_doubt(stream), broken + 1
                passes = isinstance(error, Unreachable) and not isinstance(error, Silent)
                if not doubt and (not passes or isinstance(error, NotConnected) or broken > EARLY):
                    raise
                if not passes:  # of what was sent before it says nothing
                    raise _doubtful(str(error), spec.run_id) from error
                scope.tell("waiting", f"{error}; trying again")
            finally:
                if stream:
                    stream.close()
    except Cancelled:
        if not (doubt or _in_doubt(stream)):
            raise
        return RemoteJob(far, {**handle, IN_DOUBT: "1"}, clock=scope.clock, tell=scope.tell)
    scope.checkpoint()
    where = far.transport.where
    if not broken:
        raise NotReady(f"{where} asks again and again for what it was sent", "is its disk full?")
    raise _doubtful(f"the connection to {where} broke while {spec.run_id} was started", spec.run_id)


def _in_doubt(stream: Stream | None) -> bool:
    """Return whether a request may have started the job: it was sent whole, and not refused."""
    return stream is not None and stream.whole and not stream.complete


def _begun(far: FarSide, stream: Stream, cargo: Cargo, scope: Scope) -> bool:
    """Send what the far side asks for; return whether the job was started. Raises `Silent`."""
    with far.within(SEND_LIMIT, scope) as limit:
        with suppress(ConnectionError):  # it has ended already: its answers say why
            stream.send(b"", limit)
        answer = _asked(far, stream, limit)
    if answer and answer.word == "send":
        with far.patient(scope) as limit:
            far.deliver(stream, cargo.payload(scope), limit)
        with far.within(START_LIMIT, scope) as limit:
            answer = stream.answer("started", "fail", "need", scope=limit)
    return answer is not None and answer.word == "started"


def _asked(far: FarSide, stream: Stream, scope: Scope) -> Answer | None:
    """Wait for what the far side makes of the head of a start.

    Its end does not come before the files: something over there that reads it to its end, as a
    `cat` in .bashrc, would wait for ever. A question beside it, which does end, tells. Raises so.
    """
    words = "send", "started", "fail", "need"
    try:
        return stream.answer(*words, scope=scope.within(ASIDE))
    except DeadlineExceeded:
        far.exists(scope)
        return stream.answer(*words, scope=scope)


def _doubtful(what: str, run_id: str) -> LostContact:
    return LostContact(what, f"`cvl attach {run_id}` tells whether it runs")


class Cargo:
    """What one start sends: headers, the run's files, and the part of the tree that is new."""

    def __init__(self, far: FarSide, spec: JobSpec, setup: Setup, seal: str = "") -> None:
        """`seal` is what the run's record has to carry."""
        self._far, self._spec, self._setup = far, spec, setup
        self._seal = [("seal", seal)] if seal else []
        assert spec.source is not None
        self._sync = None if setup.in_place else TreeSync(far, spec.source)
        self._mended = False

    def headers(self) -> Headers:
        """Return the start request's headers (docs/far-side.md)."""
        spec, limits = self._spec, self._spec.limits
        lines = [("id", spec.run_id), *self._seal, ("grace", f"{limits.grace:g}"), ("follow", "1")]
        lines.append(WHOSE)
        if limits.timeout is not None:
            lines.append(("timeout", f"{limits.timeout:g}"))
        if self._sync:
            lines += self._sync.headers()
            lines += self._sync.spare() if self._setup.again else []
        if self._setup.bundle == "install":
            from cvl.host.install import bundle

            lines.append(("lib", bundle().hash))
        if spec.tty:
            lines.append(("tty", "1"))
        return lines + needs_headers(spec)

    def payload(self, scope: Scope) -> Iterator[bytes]:
        """Yield the payload, one tar; `scope` is told how much has been sent, and may end it."""
        from cvl.host.upload.payload import payload

        sent, delta = 0, self._sync.delta() if self._sync else None
        for piece in payload(run_files(self._spec, self._setup), delta):
            scope.checkpoint()
            yield piece
            before, sent = sent, sent + len(piece)
            if sent >> 20 != before >> 20:
                scope.tell("upload", size(sent))

    def refused(self, stream: Stream, scope: Scope) -> None:
        """Do what the answers ask for before another attempt; else raise what they say."""
        failure = stream.finish(FINISH_LIMIT)
        answers = stream.answers()
        if stream.mute and not failure:
            if self._mended:
                raise self._far.loses()
            self._mended = True
        if not (self._far.supply(stream, failure, scope) or self._supply(answers, scope)):
            self._far.check(stream, answers, failure)

    def arrived(self, stream: Stream, scope: Scope) -> None:
        """Remember what the machine's cache holds now; pass on what there is to know."""
        where = self._far.transport.where
        answers = stream.answers()
        warnings = [f"{where}: {answer.rest}" for answer in answers if answer.word == "warn"]
        if self._sync:
            self._sync.arrived()
            warnings += self._sync.warnings
        for warning in warnings:
            scope.warn(warning)

    def _supply(self, answers: list[Answer], scope: Scope) -> bool:
        for answer in answers:
            what, _, value = answer.rest.partition(" ")
            if answer.word == "need" and what == "tree" and self._sync:
                self._sync.rebase(value)
                return True
            if answer.word == "need" and what == "lib" and self._setup.bundle == "install":
                from cvl.host.install import install

                install(self._far, scope)
                return True
        return False


def run_files(spec: JobSpec, setup: Setup) -> dict[str, bytes | Path]:
    """Return the files of a run, by their names in the tar: content, or the local file to copy."""
    files: dict[str, bytes | Path] = {
        "run/job.sh": octets(f"exec {shlex.join(spec.argv)}\n"),
        "run/env.sh": octets(exports({**spec.env, **spec.secrets})),
        "run/place": octets(example_folder(spec, setup)),
        "run/meta.json": json.dumps(about(spec)).encode(),
    }
    if setup.in_place:
        files["run/inplace"] = b""
    if spec.build:
        files["run/build.sh"] = octets(build_script(spec.build))
    if spec.limits.timeout_action:
        files["run/action.sh"] = octets(spec.limits.timeout_action + "\n")
    files.update({f"job/work/{name}": path for name, path in spec.inputs.items()})
    return files


def example_folder(spec: JobSpec, setup: Setup) -> str:
    """Return the folder that the job works in: absolute, or relative to the workspace."""
    assert spec.source is not None
    source = spec.source
    return str(source.root / source.folder) if setup.in_place else source.folder


def seal(key: bytes, run_id: str) -> str:
    """Return what proves that a run's supervisor wrote its record; `key` is random, and ours."""
    return blake2b(run_id.encode(), key=key, digest_size=16).hexdigest()


def about(spec: JobSpec) -> dict[str, object]:
    """Return what whoever is logged in there may want to know of the run. No secrets."""
    return {
        "id": spec.run_id,
        "example": spec.example,
        "preset": spec.preset,
        "args": list(spec.args),
    }


def exports(env: Mapping[str, str]) -> str:
    """Return sh lines that export these variables, byte for byte."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())


def build_script(build: Build) -> str:
    """Return sh lines that build the image unless `auto` finds it, or another one is to be used."""
    lines = []
    if build.when == "auto":
        lines.append('[ -z "${CVL_IMAGE:-}" ] || exit 0')
    if build.when == "auto" and build.image:
        lines.append(f"docker image inspect {shlex.quote(build.image)} >/dev/null 2>&1 && exit 0")
    lines.append(f"exec {shlex.join(build.argv)}")
    return "\n".join(lines) + "\n"


def needs_headers(spec: JobSpec) -> list[tuple[str, str]]:
    """Return the headers that make the far side check what the example asks for."""
    needs = spec.needs
    lines = [("docker", "1")] if needs.docker else []
    if needs.disk_gb > 0:
        lines.append(("disk", f"{needs.disk_gb:g}"))
    if needs.gpus:
        lines.append(("gpu", str(needs.gpus)))
    if spec.image:
        lines.append(("image", spec.image))
    return lines
