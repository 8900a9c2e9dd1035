"""What may pass is done again, until its scope is over; whoever asks for a pause gets it."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cleanup.until_gone import answered
from cvl.core.errors import (
    AuthError,
    Blocked,
    BrokenOff,
    CvlError,
    FetchError,
    NotConnected,
    Unreachable,
    used_up,
)
from cvl.core.parallel import bounded
from cvl.core.replies import LONGEST_WAIT, retry_after
from cvl.core.retry import MOST_WAIT, repeated, steadily
from cvl.core.scope import Cancelled, DeadlineExceeded, Hushed, Scope, limits, nap
from cvl.core.spec import FETCH_LIMIT, Cause
from cvl.tests.fakes import FakeClock

NOW = 1_700_000_000.0


def busy(seconds: float) -> Unreachable:
    """Return what comes of a 429 that asks for a pause."""
    error = Unreachable("429")
    error.wait = seconds
    return error


@pytest.mark.parametrize(
    "error", [Unreachable("cut"), NotConnected("refused"), BrokenOff("half"), Unreachable("503")]
)
def test_what_may_pass_is_tried_until_the_limit_and_then_told(error: CvlError) -> None:
    clock, told = FakeClock(), list[str]()
    began, times = clock.now, list[float]()
    scope = Scope(clock, seconds=FETCH_LIMIT, tell=lambda _, text: told.append(text))

    def step() -> None:
        times.append(clock.now)
        raise error

    with pytest.raises(type(error)) as caught:
        steadily(scope, step)
    assert caught.value is error
    assert times[-1] - began > FETCH_LIMIT - 15
    assert clock.now - began == FETCH_LIMIT
    assert len(times) > 100
    assert told[0] == f"{error}; asking again"


@pytest.mark.parametrize("after", [0.0, 15.0, 100.0, 600.0, FETCH_LIMIT - 20])
def test_what_has_passed_is_noticed_within_seconds(after: float) -> None:
    clock = FakeClock()
    began = clock.now

    def step() -> float:
        if clock.now - began < after:
            raise Unreachable("away")
        return clock.now

    assert steadily(Scope(clock, seconds=FETCH_LIMIT), step) - began - after <= 10


@pytest.mark.parametrize("error", [Blocked("full"), AuthError("no"), FetchError("no tar")])
def test_what_does_not_pass_is_told_at_once(error: CvlError) -> None:
    clock, tries = FakeClock(), list[int]()

    def step() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        steadily(Scope(clock, seconds=FETCH_LIMIT), step)
    assert (len(tries), clock.waited) == (1, [])


def test_who_answers_that_he_is_busy_is_waited_for_as_he_asks() -> None:
    clock, tries = FakeClock(), list[float]()
    error = busy(42.0)
    error.answered = True
    scope = Scope(clock, seconds=FETCH_LIMIT).patient(lambda: 60.0)

    def step() -> int:
        tries.append(clock.now)
        if len(tries) < 5:
            raise error
        return 7

    assert steadily(scope, step) == 7  # an answer is not silence
    assert {late - early for early, late in itertools.pairwise(tries)} == {42.0}


def test_silence_is_still_the_end_of_patience() -> None:
    clock = FakeClock()

    def step() -> None:
        raise Unreachable("nothing")

    with pytest.raises(Unreachable):
        steadily(Scope(clock).patient(lambda: 15.0), step)
    assert clock.now - FakeClock().now <= 16


def test_between_two_attempts_somebody_may_know_that_it_makes_no_sense() -> None:
    def gone() -> None:
        raise FetchError("the machine is gone")

    def step() -> None:
        raise Unreachable("cut")

    with pytest.raises(FetchError, match="the machine is gone"):
        steadily(Scope(FakeClock()), step, between=gone)


def test_a_stop_ends_the_waiting_at_once() -> None:
    scope = Scope(seconds=60.0)

    def step() -> None:
        threading.Timer(0.05, scope.cancel, (Cause.INTERRUPTED,)).start()
        raise busy(50.0)

    began = time.monotonic()
    with pytest.raises(Cancelled):
        steadily(scope, step)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("60", 60.0),
        ("61", 60.0),
        ("86400", 60.0),
        ("9" * 5000, 60.0),
        ("-1", 0.0),
        ("-99999999999", 0.0),
        ("1.5", 0.0),
        ("1e9", 0.0),
        ("0x10", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("\u0663", 0.0),
        ("nan", 0.0),
        ("inf", 0.0),
        (None, 0.0),
        (b"7", 0.0),
        (7, 0.0),
        (formatdate(NOW + 20, usegmt=True), 20.0),
        (formatdate(NOW + 7200, usegmt=True), 60.0),
        (formatdate(NOW - 20, usegmt=True), 0.0),
        ("Sun, 99 Foo 2026 25:61:00 GMT", 0.0),
        ("Sun, 06 Nov 99999 08:49:37 GMT", 0.0),
    ],
)
def test_how_long_an_answer_asks_us_to_wait(header: object, seconds: float) -> None:
    """Seconds or a date, by the clock of who answered: ours may be wrong."""
    assert retry_after(header, formatdate(NOW, usegmt=True)) == seconds


def test_without_a_clock_of_theirs_ours_counts() -> None:
    found = retry_after(formatdate(time.time() + 30, usegmt=True))
    assert 25 <= found <= 30


@given(st.text() | st.binary() | st.integers() | st.none(), st.text() | st.none())
def test_whatever_a_header_holds_the_wait_is_bounded(header: object, date: object) -> None:
    assert 0.0 <= retry_after(header, date) <= LONGEST_WAIT


def test_one_request_waits_as_asked_but_no_more_than_a_minute_in_all() -> None:
    clock, tries = FakeClock(), list[float]()

    def step() -> None:
        tries.append(clock.now)
        raise busy(25.0)

    with pytest.raises(Unreachable):
        repeated(step, (0.3, 1.0, 2.0), clock)
    assert [late - early for early, late in itertools.pairwise(tries)] == [25.0, 25.0]
    assert sum(clock.waited) <= MOST_WAIT


@pytest.mark.parametrize("left", [0.0, 5.0, 20.0])
def test_no_wait_that_is_asked_for_goes_beyond_the_deadline_of_a_clean_up(left: float) -> None:
    clock = FakeClock()
    began = clock.now
    with limits(Scope(clock, seconds=left)):
        nap(0.5, 60.0, clock)
    assert clock.now - began == max(left, 0.5)


def test_a_call_in_a_thread_of_its_own_is_limited_as_well() -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        bounded(lambda: nap(0.0, 60.0), Scope(seconds=0.2))
    assert time.monotonic() - began < 10


def test_limits_end_with_their_block() -> None:
    clock = FakeClock()
    with limits(Scope(clock, seconds=0.0)):
        pass
    nap(0.0, 30.0, clock)
    assert sum(clock.waited) == 30.0


def test_patience_ends_a_wait_that_is_asked_for() -> None:
    scope = Scope(seconds=60.0).patient(lambda: 0.1)
    with limits(scope):
        nap(0.0, 30.0)
    with pytest.raises(Hushed):
        scope.checkpoint()


def test_a_release_waits_as_asked_and_goes_on() -> None:
    clock = FakeClock()

    def busy_once() -> None:
        raise busy(9.0)

    assert answered(Scope(clock), busy_once) is None
    assert sum(clock.waited) == 9.0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_what_is_used_up_here_is_nobody_elses_fault(number: int) -> None:
    try:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise RuntimeError("the server does not answer") from error
    except RuntimeError as error:
        found = used_up(error)
    assert found
    assert os.strerror(number) in str(found)
    assert not isinstance(found, Unreachable)
    assert used_up(OSError(errno.ECONNREFUSED, "refused")) is None
