"""One supervised job on a machine: follow, ask, stop, fetch, tidy up.

The supervisor over there is what keeps the job; this side may come and go. Output is read by
byte offset, so a connection that breaks costs nothing: connect again, go on at the offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cvl.core.errors import (
    Blocked,
    CvlError,
    FetchError,
    LostContact,
    NotReady,
    Unknown,
    Unreachable,
    Unreadable,
)
from cvl.core.scope import Cancelled, Clock, Scope, Tell, silent
from cvl.core.spec import IN_DOUBT, Cause, ExitStatus, LogChunk
from cvl.core.staging import landing_in
from cvl.core.units import elapsed
from cvl.host.download.results import Skipped
from cvl.host.identity import WHOSE, confirm
from cvl.host.record import STATES, state_of
from cvl.host.rpc import FarSide, Headers
from cvl.host.stream import Answer, Stream

PATIENCE = 600.0
"""Seconds without any contact after which following gives up; the job lives on."""
PAUSES = (0.0, 0.1, 0.3, 1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts to get back; the last one repeats."""
FINISH_LIMIT = 30.0
SHORT_LIMIT = 4
"""Times that a host may end, without a fault, before all the output that its result names; and
that it may lack what we have just installed there."""


class RemoteJob:
    """The `Execution` of every runner whose machine has our shell files."""

    def __init__(
        self,
        far: FarSide,
        handle: Mapping[str, str],
        *,
        started: Stream | None = None,
        clock: Clock | None = None,
        patience: float = PATIENCE,
        tell: Tell = silent,
    ) -> None:
        """`handle["run"]` is the run id; `started` is the stream of the request that began it.

        `handle["seal"]` is what the record of its end has to carry.

        With `IN_DOUBT` that request may still be on its way: where the machine knows no such run,
        it is told never to start it. `tell` hears when the machine is silent, and when it is back.
        `while_away` is called between two attempts to get back; it may raise to end them.
        """
        self._far = far
        self._handle = handle
        self._stream = started
        self._fresh = started
        self._status: ExitStatus | None = None
        self._scope = Scope(clock, tell=tell)
        self._left = 0
        self._short: list[int] = []
        self._supplied = 0
        self._senseless = False
        self._patience = patience
        self._settle = [("settle", "1")] if IN_DOUBT in handle else []
        self.while_away: Callable[[], None] = lambda: None
        self.refused_here: tuple[Skipped, ...] = ()
        """What this machine did not take of the last fetch."""

    @property
    def handle(self) -> Mapping[str, str]:
        return self._handle

    @property
    def run_id(self) -> str:
        """The run that this is."""
        return self._handle["run"]

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        with suppress(Cancelled):  # closed
            self._scope.checkpoint()
            yield from self._followed(int(after or 0))
        if self._scope.cause and self._stream:
            self._stream.close()  # it may have been opened just after we were

    def _followed(self, offset: int) -> Iterator[LogChunk]:
        now = self._scope.clock.monotonic
        since = now()
        for attempt in self._scope.attempts(PAUSES):
            fresh, self._fresh = self._fresh, None
            try:
                stream = fresh if fresh and offset == 0 else self._follow(offset)
                for data in self._named(stream, offset):
                    offset += len(data)
                    attempt.anew()
                    since, self._supplied, self._senseless = now(), 0, False
                    yield LogChunk(data=data, cursor=str(offset))
                if self._is_over(stream, offset):
                    return
            except (Unreachable, Unreadable) as gone:
                if now() - since > self._patience:
                    raise self._lost(gone) from gone
                self._missed(gone)
                self.while_away()

    def poll(self) -> ExitStatus | None:
        """As every execution's. Raises `Unreadable` when what the machine says makes no sense."""
        if self._status is None:
            answers = self._ask("status", [*self._id(), *self._settle])
            self._status = self._state(answers)
        return self._status

    def stop(self, grace: float, cause: Cause = Cause.STOPPED) -> None:
        """As every execution's. Raises `Unreadable` when what the machine says makes no sense."""
        headers = [*self._id(), *self._settle, ("cause", cause.value), ("grace", f"{grace:g}")]
        answers = self._ask("stop", headers)
        self._status = self._state(answers)

    def fetch(self, into: Path, scope: Scope) -> None:
        from cvl.host.download.fetch import fetch

        try:
            with landing_in(into):
                landed = fetch(self._far, self._handle, into, scope, self.while_away)
            self._left = sum(each.stays for each in landed.skipped)
            self.refused_here = landed.refused_here
        except Unknown as error:
            self._confirm()
            text = f"the results of {self.run_id} could not be fetched: {error}"
            raise FetchError(text, error.hint) from error
        except CvlError as error:
            where = self._far.transport.where
            hint = f"they are still on {where}; `cvl fetch {self.run_id}` gets them"
            kind = Blocked if isinstance(error, Blocked) else FetchError
            raise kind(
                f"the results of {self.run_id} could not be fetched: {error}",
                f"{error.hint}; {hint}" if error.hint else hint,
            ) from error

    def discard(self) -> None:
        """Remove what the run left on the machine, except its result.

        Raises `NotReady` when something cannot be removed, or the last fetch left files there.
        """
        if self._left:
            files = "a file" if self._left == 1 else f"{self._left} files"
            raise NotReady(
                f"{files} could not be brought here; `cvl fetch {self.run_id}` tries again"
            )
        image = self._handle.get("image", "")
        answers = self._ask("clean", [*self._id(), *([("image", image)] if image else [])])
        if left := [answer.rest for answer in answers if answer.word == "warn"]:
            raise NotReady("; ".join(left), "remove it as root")

    def written(self, after: str = "") -> Iterator[LogChunk]:
        """Yield what the job has written by now after the cursor; does not wait for more.

        Raises `Elsewhere` where the machine is not the one that the run is on.
        """
        offset = int(after or 0)
        headers = [*self._id(), ("offset", str(offset))]
        try:
            with self._far.patient(self._scope) as scope:
                for data in self._far.pieces("written", headers, scope, []):
                    offset += len(data)
                    yield LogChunk(data=data, cursor=str(offset))
        except Unknown:
            self._confirm()
            raise

    def close(self) -> None:
        self._scope.cancel(Cause.STOPPED)
        if self._stream:
            self._stream.close()

    def _follow(self, offset: int) -> Stream:
        if self._stream:
            self._stream.close()
        headers = [*self._id(), ("offset", str(offset))]
        self._stream = self._far.open("follow", headers, scope=self._scope)
        return self._stream

    def _named(self, stream: Stream, offset: int) -> Iterator[bytes]:
        """Yield the payload from `offset` on, but no byte beyond what its `result` names."""
        for data in stream.payload(self._scope):
            status = self._told(stream.answers()) if stream.said("result") else None
            size = None if status is None else status.log_bytes
            if left := data if size is None else data[: max(0, size - offset)]:
                yield left
            offset += len(data)
            if size is not None and offset > size:
                stream.close()

    def _ask(self, verb: str, headers: Headers) -> list[Answer]:
        """Ask, but no longer than we are wanted."""
        try:
            return self._far.ask(verb, headers, scope=self._scope)[0]
        except Cancelled:
            raise Unreachable(f"{self._far.transport.where} was let go") from None

    def _told(self, answers: list[Answer]) -> ExitStatus | None:
        told = any(answer.word in STATES for answer in answers)
        return self._state(answers) if told else None

    def _state(self, answers: list[Answer]) -> ExitStatus | None:
        """Return how the run has ended, None while it goes on.

        Raises `Elsewhere` where the run is unknown to a machine that is not the one it is on.
        """
        for answer in answers:
            if answer.word == "on":
                confirm(self._handle, answer.rest, self._far.transport.where)
        return state_of(answers, self.run_id)

    def _confirm(self) -> None:
        """Raise `Elsewhere` if the machine that knows no such run is not the one it is on."""
        self._state(self._ask("status", self._id()))

    def _is_over(self, stream: Stream, offset: int) -> bool:
        """Return whether the stream ended because the job did, with every byte seen."""
        failure = stream.finish(FINISH_LIMIT)
        answers = stream.answers()
        if self._supply(stream, failure):
            return False
        if self._settle and any(answer.word == "unknown" for answer in answers):
            return True  # a `poll` settles it
        if any(answer.word == "fail" for answer in answers):
            self._far.check(stream, answers, failure)
        status = self._told(answers)
        if status is None:
            where = self._far.transport.where
            why = str(self._far.unanswered(stream)) if stream.mute else f"{where} closed the stream"
            raise failure or Unreachable(why)
        if status.log_bytes is not None and offset < status.log_bytes:
            self._short += [] if failure else [offset]
            if self._short.count(offset) < SHORT_LIMIT:
                raise Unreachable(f"{self._far.transport.where} sent less output than there is")
            status = _cut(status, offset, stream.half)
        self._status = status
        return True

    def _supply(self, stream: Stream, failure: Exception | None) -> bool:
        """As the far side's. While a job is followed, a host that takes nothing may yet do so."""
        try:
            supplied = self._far.supply(stream, failure, self._scope)
        except NotReady as error:
            raise Unreachable(str(error), error.hint) from error
        self._supplied += supplied
        if self._supplied > SHORT_LIMIT:
            raise self._lost(self._far.loses())
        return supplied

    def _missed(self, gone: Exception) -> None:
        """Tell of a host that gives no answer for long, or at once that it makes no sense."""
        if isinstance(gone, Unreachable):
            self._far.silence.wait(self._scope, str(gone))
        elif not self._senseless:
            self._senseless = True
            self._scope.warn(f"{gone}; asking again for up to {elapsed(self._patience)}")

    def _lost(self, gone: Exception) -> LostContact:
        return LostContact(
            f"lost contact with {self._far.transport.where}: {gone}",
            f"the job lives on; `cvl attach {self.run_id}` follows it again",
        )

    def _id(self) -> list[tuple[str, str]]:
        seal = self._handle.get("seal", "")  # of runs that an older cvl started there is none
        return [("id", self.run_id), *([("seal", seal)] if seal else []), WHOSE]


def _cut(status: ExitStatus, size: int, half: str) -> ExitStatus:
    """Return the ending of a run of whose output only `size` bytes came; `half`: why, if known."""
    lacks = f"of its {status.log_bytes} bytes of output the machine has only {size}"
    if half:
        lacks = f"of its {status.log_bytes} bytes of output only {size} came here: {half}"
    return ExitStatus(
        int(status),
        cause=status.cause,
        run_id=status.run_id,
        detail=", ".join(filter(None, (status.detail, lacks))),
        log_bytes=size,
    )
