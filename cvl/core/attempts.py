"""One attempt after another at the same thing, with pauses between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Self


class Attempts:
    """An iterator over itself, for the loop that makes them: `number` says how many came before.

    It ends once there are `most` of them, or no time for another. `Scope.attempts` gives them.
    """

    def __init__(
        self, pauses: Sequence[float], rest: Callable[[float, float], bool], most: float = inf
    ) -> None:
        """`pauses`: seconds between them; the last one repeats.

        `rest(pause, asked)` waits, and returns whether there is time for another.
        """
        self.number = 0
        self.pauses = pauses
        self._rest, self._most = rest, most
        self._at, self._asked, self._pauses = 0, 0.0, True

    def __iter__(self) -> Iterator[Self]:
        while True:
            yield self
            self.number += 1
            if self.number >= self._most or not self._rested():
                return

    def asked(self, seconds: float) -> None:
        """Let the next pause be no shorter: who answered has asked for it."""
        self._asked = seconds

    def anew(self) -> None:
        """Begin with the shortest pause again: something has come."""
        self._at = 0

    def at_once(self) -> None:
        """Let the next attempt follow without a pause, also where there is no time for one."""
        self._pauses = False

    def _rested(self) -> bool:
        pauses, self._pauses = self._pauses, True
        if not pauses:
            return True
        pause, asked = self.pauses[min(self._at, len(self.pauses) - 1)], self._asked
        self._at, self._asked = self._at + 1, 0.0
        return self._rest(pause, asked)
