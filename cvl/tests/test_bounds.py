"""Whatever a host does or does not say: every question ends, in time and in memory."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from cvl.core.errors import CvlError, Silent, Unreadable
from cvl.core.interfaces import Process
from cvl.core.scope import Cancelled, DeadlineExceeded, Scope
from cvl.core.spec import Cause
from cvl.host import job, resolve_there, rpc, stream
from cvl.host.answers import ANSWERS, KEPT, LINE, NOISE, AnswerReader
from cvl.host.job import RemoteJob
from cvl.host.provider import LOOKING
from cvl.host.rpc import FarSide
from cvl.ledger import Ledger, RunState
from cvl.testing import hostile
from cvl.testing.cli_harness import Desk, wait_for
from cvl.testing.hostile import BEHAVIOURS, HostileHost
from cvl.transports.local import Local
from cvl.transports.ssh.openssh import OpenSSH

LIMIT = 1.0
"""Seconds that a question may take here."""
SLACK = 8.0
"""Seconds in which a busy machine, ssh's own connecting included, is through with it."""
VERBS = ("status", "stop", "clean", "runs", "sweep", "changed")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileHost]:
    with hostile.host(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture
def host(there: HostileHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileHost]:
    """That host, asked with little patience."""
    monkeypatch.setattr(rpc, "ASK_LIMIT", LIMIT)
    monkeypatch.setattr(resolve_there, "LIMIT", LIMIT)
    yield there
    there.login.reform()


def reach(there: HostileHost) -> FarSide:
    sshd = there.sshd
    return FarSide(OpenSSH(sshd.name, config=sshd.ssh_config, control_persist=0))


def soon(call: Callable[[], object]) -> CvlError | None:
    """Return what `call` raises of ours; it has to be over soon."""
    began = time.monotonic()
    try:
        call()
    except CvlError as error:
        return error
    finally:
        assert time.monotonic() - began < LIMIT + SLACK
    return None


@pytest.mark.parametrize("name", sorted(BEHAVIOURS))
def test_every_question_to_every_host_ends(host: HostileHost, name: str) -> None:
    host.login.turn(name)
    for verb in ("status", "changed"):
        error = soon(lambda verb=verb: reach(host).ask(verb, [("id", "none")]))  # type: ignore[misc]
        if name in {"hang", "deaf", "drip", "drip-payload"}:
            assert isinstance(error, Silent)
        if name.startswith("flood") or name == "long-answer":
            assert isinstance(error, Unreadable | Silent)
            assert str(error).count("\n") == 0


@pytest.mark.parametrize("name", ["hang", "deaf", "drip", "flood-stdout", "flood-stderr"])
def test_so_does_every_command_that_is_no_request(host: HostileHost, name: str) -> None:
    host.login.turn(name)
    side = reach(host)
    questions: dict[str, Callable[[], object]] = {
        "exists": side.exists,
        "install": lambda: side.install("0123", b"x" * 10_000_000),
        "require": lambda: side.output(LOOKING),
        "resolve": lambda: resolve_there.job(side, "example", "", (), install=False),
    }
    for what, call in questions.items():
        assert isinstance(soon(call), CvlError), what


def test_a_host_that_reads_nothing_holds_nobody(host: HostileHost) -> None:
    host.login.turn("hang")
    side = reach(host)
    with pytest.raises(Silent):
        side.open("start", [], b"x" * 10_000_000)
    scope = Scope(seconds=0.3)
    with pytest.raises(DeadlineExceeded):
        side.open("start", [], b"x" * 10_000_000, scope)


def test_a_question_is_over_when_nobody_wants_its_answer(there: HostileHost) -> None:
    there.login.turn("hang")
    scope, began = Scope(), time.monotonic()
    signal_in(scope, 0.3)
    with pytest.raises(Cancelled):
        reach(there).ask("status", [("id", "none")], scope=scope)
    assert time.monotonic() - began < SLACK
    there.login.reform()


def test_a_job_that_is_let_go_asks_no_more(there: HostileHost) -> None:
    there.login.turn("hang")
    job = RemoteJob(reach(there), {"run": "none"})
    closing = Scope()
    signal_in(closing, 0.3, job.close)
    assert "was let go" in str(soon(job.poll))
    there.login.reform()


def test_a_job_that_is_let_go_while_it_asks_leaves_nothing_behind() -> None:
    started: list[Process] = []

    class Closing(Local):
        def start(self, argv: Sequence[str]) -> Process:
            del argv
            remote.close()
            started.append(super().start(("sleep", "1000")))
            return started[-1]

    remote = RemoteJob(FarSide(Closing()), {"run": "none"})
    assert list(remote.chunks()) == []
    assert [each.poll() for each in started] == [-signal.SIGKILL]


def test_no_more_output_is_taken_than_the_result_names(host: HostileHost) -> None:
    host.login.turn("more-than-named", "follow", "status")
    job = RemoteJob(reach(host), {"run": "none"}, patience=0.1)
    said = b"".join(chunk.data for chunk in job.chunks())
    assert len(said) == 5 or not said.strip(b"o")
    status = job.poll()
    assert status is not None
    assert status.log_bytes == 5


def test_output_that_a_host_has_lost_is_not_waited_for(host: HostileHost) -> None:
    """A job may empty the file of its own output: it has ended all the same."""
    host.login.turn("less-than-named", "follow", "status")
    remote = RemoteJob(reach(host), {"run": "none"})
    began = time.monotonic()
    assert not b"".join(chunk.data for chunk in remote.chunks())
    assert time.monotonic() - began < SLACK
    status = remote.poll()
    assert status is not None
    assert (int(status), status.log_bytes) == (0, 0)
    assert "of its 5000 bytes of output the machine has only 0" in status.detail


def test_a_slow_host_is_heard_to_the_end(
    host: HostileHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "FINISH_LIMIT", 1.0)
    host.login.turn("slowly", "follow")
    remote = RemoteJob(reach(host), {"run": "none"}, patience=1.0)
    assert b"".join(chunk.data for chunk in remote.chunks()) == b"hello\n"
    status = remote.poll()
    assert status is not None
    assert int(status) == 3


def test_one_that_never_ends_its_answer_is_not(
    host: HostileHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SLOW_LIMIT", 2.0)
    host.login.turn("drip", "status")
    request = reach(host).open("status", [("id", "none")])
    began = time.monotonic()
    assert isinstance(request.finish(1.5), Silent)
    request.close()
    assert 1.9 < time.monotonic() - began < SLACK


def test_a_host_is_not_silent_while_we_ourselves_take_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As files that are slow to read here, or a pager behind `cvl logs`."""
    monkeypatch.setattr(rpc, "ASK_LIMIT", LIMIT)
    words = "size=$(wc -c); echo cvl:1; head -c $size /dev/zero; printf '\\000cvl:1 end\\n'; "
    far, sent = FarSide(Local()), [bytes(1 << 20)] * 3
    request = far.stream(("sh", "-c", words + "echo cvl:1 end payload >&2"), "1")
    with far.patient(Scope()) as scope:
        far.deliver(request, slowly(sent), scope)
        assert b"".join(slowly(request.payload(scope))) == b"".join(sent)
        assert request.finish(LIMIT, scope) is None


def slowly(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give them on, the first two after longer than a question may take."""
    for number, piece in enumerate(pieces):
        if number < 2:
            time.sleep(1.2 * LIMIT)
        yield piece


def test_the_line_that_begins_a_payload_does_come(
    host: HostileHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MARK_LIMIT", 0.5)
    host.login.turn("deaf", "follow")
    asked = reach(host).open("follow", [("id", "none")])
    with pytest.raises(Silent):
        list(asked.payload())
    asked.close()


def test_little_is_kept_of_what_a_host_complains_of() -> None:
    hearing = AnswerReader(b"cvl:1")
    for _ in range(NOISE // LINE // 4 - 1):
        assert hearing.take(b"x" * LINE * 4) == ""
    assert len(hearing.noise) <= KEPT + LINE
    hearing.take(b"\ncvl:1 fail space no space left\nlast words")
    assert [each.rest for each in hearing.answers] == ["space no space left"]
    assert hearing.noise.endswith(b"last words")
    assert hearing.take(b"x" * LINE * 8) == "words without end"


def test_an_answer_is_one_wherever_it_was_cut() -> None:
    said = b"noise\ncvl:1 started\nmore\ncvl:1 warn a b\n"
    for at in range(len(said)):
        hearing = AnswerReader(b"cvl:1")
        assert not hearing.take(said[:at]) + hearing.take(said[at:])
        assert [(each.word, each.rest) for each in hearing.answers] == [
            ("started", ""),
            ("warn", "a b"),
        ]
        assert hearing.noise == b"noise\nmore\n"


def test_answers_have_an_end_and_so_has_their_number() -> None:
    assert (
        AnswerReader(b"cvl:1").take(b"cvl:1 warn " + b"x" * 2 * LINE)
        == "an answer that does not end"
    )
    assert AnswerReader(b"cvl:1").take(b"cvl:1 warn x\n" * (ANSWERS + 2)) == "answers without end"
    inner = AnswerReader(b"cvl:1")
    inner.take(b"x" * 2 * LINE)
    inner.take(b"cvl:1 warn in the midst of a line\n")
    assert [each.rest for each in inner.answers] == ["in the midst of a line"]
    inner.take(b"cvl:1 result exited 0 1")
    assert len(inner.answers) == 1, "a number may have been cut"


def signal_in(scope: Scope, seconds: float, call: Callable[[], object] = lambda: None) -> None:
    from threading import Timer

    def ring() -> None:
        scope.cancel(Cause.INTERRUPTED)
        call()

    Timer(seconds, ring).start()


HUNG = ("hang", "deaf", "drip", "flood-stderr", "flood-stdout", "close-early")


@pytest.mark.parametrize("name", HUNG)
def test_an_interrupt_comes_back_from_a_host_that_gives_nothing(
    there: HostileHost, tmp_path: Path, name: str
) -> None:
    desk = Desk(folder=tmp_path, options=("--docker", "testhost"), env=there.sshd.env)
    with desk.start(
        "run", *desk.options, "--grace", "2s", "one", "sh", "echo go; sleep 1000"
    ) as cvl:
        cvl.shows(b"go\n")
        there.login.turn(name)
        began = time.monotonic()
        cvl.signal(signal.SIGINT)
        done = cvl.ended()
        assert time.monotonic() - began < 2 + 10 + 5, done.err
    there.login.reform()
    run = desk.runs()[0]
    assert done.code == 125
    assert f"cvl stop {run}" in done.err
    assert desk.cvl("stop", "--grace", "0s", run).code in {0, 143}
    assert desk.left(run) == []


@pytest.mark.parametrize("verb", ["changed", "pack", "clean"])
def test_so_it_does_while_results_are_on_their_way(
    there: HostileHost, tmp_path: Path, verb: str
) -> None:
    desk = Desk(folder=tmp_path, options=("--docker", "testhost"), env=there.sshd.env)
    there.login.turn("hang" if verb == "clean" else "drip-payload", verb)
    script = "echo a >result; echo go; sleep 1000"
    ledger = Ledger(desk.state / "ledger.db")
    with desk.start("run", *desk.options, "--grace", "1s", "one", "sh", script) as cvl:
        cvl.shows(b"go\n")
        began = time.monotonic()
        cvl.signal(signal.SIGINT)
        if verb == "clean":
            done = cvl.ended()
            assert time.monotonic() - began < 1 + 10 + 5, done.err
            assert "the workspace" in done.err
        else:  # it drips: a host that answers, and only a second signal leaves it
            wait_for(lambda: ledger.run(desk.runs()[0]).state is RunState.FETCHING)
            cvl.signal(signal.SIGINT)
            done = cvl.ended()
            assert "`cvl fetch" in done.err
    there.login.reform()
    assert done.code == 130
    run = desk.runs()[0]
    if verb != "clean":
        assert desk.cvl("fetch", run).code == 0
    assert desk.result("result") == b"a\n"
