"""What comes on the far side's stderr: answers of ours, and the host's own words.

A host may write without end and without a line break, so of all of it little is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

LINE = 1 << 14
"""Bytes of one line; no answer of ours has more than a path and a sentence."""
ANSWERS, ANSWER_BYTES = 1000, 1 << 18
"""How many answers one request may have, and their bytes."""
KEPT = 1 << 13
"""Bytes of the host's own words that are kept: the last, for they say what went wrong."""
NOISE = 1 << 22
"""Bytes of them that are listened to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One line that the far side said: a word and the rest."""

    word: str
    rest: str


class Hearing:
    """Takes stderr in as it comes. `mark` is what an answer of ours begins with."""

    def __init__(self, mark: bytes) -> None:
        self.answers: list[Answer] = []
        self._mark = mark
        self._line = b""
        self._noise = b""
        self._noisy = self._answered = 0
        self._amid = False

    @property
    def noise(self) -> bytes:
        """The last of the host's own words."""
        return self._noise + (b"" if self._line.startswith(self._mark) else self._line)

    def take(self, data: bytes) -> str:
        """Take in what came; return what is wrong with it, "" for nothing."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._end(self._line + line)
            self._line = b""
        self._line += rest
        if len(self._line) > LINE:
            if self._is_answer(self._line):
                return "an answer that does not end"
            self._heard(self._line)
            self._line, self._amid = b"", True
        if len(self.answers) > ANSWERS or self._answered > ANSWER_BYTES:
            return "answers without end"
        return "error messages without end" if self._noisy > NOISE else ""

    def close(self) -> None:
        """Take the last line as whole: nothing follows."""
        if self._line:
            self._end(self._line, b"")
        self._line = b""

    def _end(self, line: bytes, newline: bytes = b"\n") -> None:
        if self._is_answer(line):
            self._answered += len(line)
            if len(self.answers) <= ANSWERS:
                text = line[len(self._mark) : LINE].decode(errors="replace").strip()
                word, _, rest = text.partition(" ")
                self.answers.append(Answer(word, rest))
        else:
            self._heard(line + newline)
        self._amid = False

    def _is_answer(self, line: bytes) -> bool:
        return line.startswith(self._mark) and not self._amid

    def _heard(self, words: bytes) -> None:
        self._noisy += len(words)
        self._noise = (self._noise + words[-KEPT:])[-KEPT:]
