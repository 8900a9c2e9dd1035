"""What comes on one channel of the far side: answers of ours, and the host's own words.

An answer is a mark, a word and the rest, up to the line's end; it may begin anywhere in a line, for
what a login shell prints need not end in a line break. A host may write without end and without a
line break, so of all of it little is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

LINE = 1 << 14
"""Bytes of one line; no answer of ours has more than a path and a sentence."""
ANSWERS, ANSWER_BYTES = 1000, 1 << 18
"""How many answers one request may have, and their bytes."""
KEPT = 1 << 13
"""Bytes of the host's own words that are kept: the last, for they say what went wrong."""
NOISE = 1 << 26
"""Bytes of them that are listened to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One line that the far side said: a word and the rest."""

    word: str
    rest: str


class AnswerReader:
    """Takes a channel in as it comes. `mark` is what an answer of ours begins with."""

    def __init__(self, mark: bytes) -> None:
        self.answers: list[Answer] = []
        self._mark = mark + b" "
        self._line = b""
        self._noise = b""
        self._noisy = self._answered = 0

    @property
    def noise(self) -> bytes:
        """The last of the host's own words."""
        return self._noise + self._line.partition(self._mark)[0]

    def take(self, data: bytes) -> str:
        """Take in what came; return what is wrong with it, "" for nothing."""
        lines, newline, self._line = (self._line + data).rpartition(b"\n")
        if self._mark in lines:
            for line in lines.split(b"\n"):
                self._whole(line)
        else:
            self._heard(lines + newline)
        if len(self._line) > LINE and not self._shortened():
            return "an answer that does not end"
        if len(self.answers) > ANSWERS or self._answered > ANSWER_BYTES:
            return "answers without end"
        return "words without end" if self._noisy > NOISE else ""

    def _whole(self, line: bytes) -> None:
        before, mark, answer = line.partition(self._mark)
        self._heard(before if mark else line + b"\n")
        if not mark:
            return
        if before.endswith(b"\0") and answer.strip() == b"end":
            return  # of a payload, on the wrong channel or cut into pieces: no answer
        self._answered += len(answer)
        if len(self.answers) <= ANSWERS:
            word, _, rest = answer[:LINE].decode(errors="replace").strip().partition(" ")
            self.answers.append(Answer(word, rest))

    def _shortened(self) -> bool:
        """Let go of the noise in a long line; return whether no answer in it is too long."""
        at = self._line.find(self._mark)
        if at < 0:
            at = len(self._line) - len(self._mark) + 1  # the mark may have begun
        self._heard(self._line[:at])
        self._line = self._line[at:]
        return len(self._line) <= LINE

    def _heard(self, words: bytes) -> None:
        self._noisy += len(words)
        self._noise = (self._noise + words[-KEPT:])[-KEPT:]
