"""Keeps a guardian on duty for as long as one is wanted, and says goodbye to it in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from cvl.core.errors import CvlError

DONE, FOLLOW, KEEP = "done", "follow", "keep"
"""Last words to a guardian: let all be, nothing is open; follow the run to its end; let everything
be until the limit. Without one it stops the job and ends the run."""
MOST = 10
"""Guardians that are started for one run: something that kills ten will kill the next."""
TAIL = 10.0
"""Seconds before everything has to be gone in which the guardian only releases; we, twice that."""


class Guard(Protocol):
    """The process that outlives us, as seen from here: what each does `Guardian` says.

    `owner` is what the ledger knows it by.
    """

    owner: str

    def alive(self) -> bool: ...
    def wait(self) -> None: ...
    def limit(self, seconds: float, room: float) -> None: ...
    def hang_up(self, last_word: str = "") -> None: ...


def tail(room: float, seconds: float) -> float:
    """Return the last of a run's time, which only the release gets: at most half of the room."""
    return min(seconds, room / 2)


class GuardianKeeper:
    """The guardian of one run. One that dies is replaced at once. Safe in any thread."""

    def __init__(
        self,
        start: Callable[[], Guard] | None,
        *,
        limit: Callable[[], tuple[float, float] | None],
        wanted: Callable[[], bool],
        warn: Callable[[str], None],
    ) -> None:
        """`start` None: there is none. `limit`: seconds to the limit, and its room.

        `wanted`: by us, still.
        """
        self._start, self._limit, self._wanted, self._warn = start, limit, wanted, warn
        self._lock = threading.RLock()
        self._guardian: Guard | None = None
        self._started = 0

    def begin(self) -> None:
        """Have one on duty. Raises `CvlError` if it does not start."""
        with self._lock:
            if self._start is None or (self._guardian and self._guardian.alive()):
                return
            self._guardian = guardian = self._start()
            self._started += 1
            if (limit := self._limit()) is not None:
                guardian.limit(*limit)
            mind, name = self._mind, "cvl-keeper"
            threading.Thread(target=mind, args=(guardian,), name=name, daemon=True).start()

    def limit(self, seconds: float, room: float) -> None:
        """Tell it the limit, if there is one on duty."""
        with self._lock:
            if self._guardian:
                self._guardian.limit(seconds, room)

    def end(self, *, alive: bool = True) -> Guard | None:
        """Return it for a last word: it is not replaced any more. None: there was none.

        `alive`: if it has just died, return another. Raises `CvlError` when that does not start.
        """
        with self._lock:
            if self._guardian and alive:
                self.begin()
            guardian, self._guardian = self._guardian, None
            return guardian

    def _mind(self, guardian: Guard) -> None:
        """Replace a guardian that has ended though it is still wanted: killed, out of memory."""
        guardian.wait()
        with self._lock:
            if self._guardian is not guardian or self._started >= MOST or not self._wanted():
                return
            self._warn("the guardian has died; another takes its place")
            try:
                self.begin()
            except CvlError as error:
                self._warn(f"nothing would end the rent if cvl died now: {error}")
