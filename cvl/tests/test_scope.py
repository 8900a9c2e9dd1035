"""Deadlines, cancels and signals: what raises, where, and what is never interrupted."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from cvl.core.scope import Bell, Cancelled, DeadlineExceeded, Scope, signals
from cvl.core.spec import Cause
from cvl.tests.fakes import FakeClock


def test_a_deadline_raises_at_the_checkpoint_after_it() -> None:
    clock = FakeClock()
    scope = Scope(clock, seconds=10)
    scope.checkpoint()
    clock.now += 10
    with pytest.raises(DeadlineExceeded):
        scope.checkpoint()


def test_sleep_never_passes_the_deadline() -> None:
    clock = FakeClock()
    with pytest.raises(DeadlineExceeded):
        Scope(clock, seconds=3).sleep(100)
    assert clock.waited == [3]


def test_an_inner_scope_ends_with_the_outer_one() -> None:
    clock = FakeClock()
    outer = Scope(clock, seconds=5)
    assert outer.within(60).remaining() == 5
    assert outer.within(2).remaining() == 2
    assert outer.within(None).remaining() == 5
    inner = outer.within(60)
    outer.cancel(Cause.STOPPED)
    with pytest.raises(Cancelled) as cancelled:
        inner.checkpoint()
    assert cancelled.value.cause is Cause.STOPPED


def test_the_first_cause_stays() -> None:
    scope = Scope(FakeClock())
    scope.cancel(Cause.INTERRUPTED)
    scope.cancel(Cause.TERMINATED)
    assert scope.cause is Cause.INTERRUPTED


def test_clean_up_is_shielded_from_the_cancel_but_not_from_its_own_deadline() -> None:
    clock = FakeClock()
    scope = Scope(clock)
    scope.cancel(Cause.INTERRUPTED)
    shield = scope.shielded(4)
    shield.checkpoint()
    with pytest.raises(DeadlineExceeded):
        shield.sleep(5)


def test_a_cancel_wakes_every_sleeper() -> None:
    scope = Scope()
    causes: list[Cause] = []
    asleep = threading.Barrier(3)

    def sleeper() -> None:
        asleep.wait(10)
        with pytest.raises(Cancelled) as cancelled:
            scope.sleep(60)
        causes.append(cancelled.value.cause)

    threads = [threading.Thread(target=sleeper) for _ in range(2)]
    for thread in threads:
        thread.start()
    asleep.wait(10)
    scope.cancel(Cause.TERMINATED)
    for thread in threads:
        thread.join(10)
    assert causes == [Cause.TERMINATED] * 2


def test_wait_hears_of_the_news_from_another_thread() -> None:
    bell, seen = Bell(), []

    def tell() -> None:
        seen.append(1)
        bell.ring()

    threading.Timer(0.01, tell).start()
    Scope(seconds=10).wait(lambda: bool(seen), bell)
    assert seen


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGINT, Cause.INTERRUPTED),
        (signal.SIGTERM, Cause.TERMINATED),
        (signal.SIGHUP, Cause.HANGUP),
    ],
)
def test_a_signal_only_sets_the_flag(number: signal.Signals, cause: Cause) -> None:
    scope = Scope()
    presses: list[int] = []
    before = signal.getsignal(number)
    with signals(scope, presses.append):
        os.kill(os.getpid(), number)
        assert scope.cause is cause
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        with pytest.raises(Cancelled):
            scope.sleep(60)
    assert presses == [2, 3]
    assert signal.getsignal(number) is before


def test_a_signal_wakes_a_wait() -> None:
    scope = Scope()
    with signals(scope, lambda _count: None):
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(Cancelled):
            scope.wait(lambda: False, Bell())


def test_signals_can_ring_a_bell_that_is_being_waited_on() -> None:
    """Hundreds of signals while the main thread goes in and out of waits: no deadlock."""
    bell, rings = Bell(), 0
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: bell.ring())
    stop = threading.Event()

    def fire() -> None:
        while not stop.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)

    shooter = threading.Thread(target=fire)
    shooter.start()
    try:
        while rings < 200:
            rings += bell.wait(0.001)
    finally:
        stop.set()
        shooter.join()
        signal.signal(signal.SIGUSR1, before)
    assert rings == 200
