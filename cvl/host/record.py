"""What became of a run, as a host or a file tells it: read in this one place, or `Unreadable`.

Whatever wrote it may be damaged, of another version, or hostile. What does not fit in every detail
is no ending: nothing is known then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cvl.core.errors import Unreadable
from cvl.core.regular_file import start_of
from cvl.core.spec import EXIT_CODES, Cause, ExitStatus, ended

if TYPE_CHECKING:
    from cvl.host.answers import Answer

LIMIT = 200
"""Characters that a record may have; ours have half of it at most."""
SHOWN = 80
"""Characters of what cannot be read that a person is shown."""
RECORD = re.compile(
    r"([a-z-]+) (0|[1-9][0-9]{0,2}) (0|[1-9][0-9]{0,17})((?: [a-z-]+(?:=[0-9a-f,]{1,40})?)*)"
)
"""`CAUSE CODE BYTES [FLAGS]`, with single spaces (docs/far-side.md)."""
CAUSES = frozenset(Cause) - {Cause.OUT_OF_MEMORY, Cause.DETACHED}
"""Those that the shell files write."""
LEFT = "containers-left"
FLAGS = frozenset({"disk-full", LEFT})
STATES = frozenset({"running", "stopping", "result", "unknown"})
"""The answers that tell the state of a run."""
LAST_CODE = 255


def ending(text: str, run_id: str) -> ExitStatus:
    """Return the ending that `CAUSE CODE BYTES [FLAGS]` tells. Raises `Unreadable`."""
    match = RECORD.fullmatch(text) if len(text) <= LIMIT else None
    if not match or match[1] not in CAUSES:
        raise unreadable(run_id, text)
    cause, code, flags = Cause(match[1]), int(match[2]), match[4].split()
    known = FLAGS.issuperset(flag.partition("=")[0] for flag in flags)
    if code != EXIT_CODES.get(cause, code) or code > LAST_CODE or not known:
        raise unreadable(run_id, text)
    detail = "; ".join(map(_meaning, flags))
    return ExitStatus(code, cause=cause, run_id=run_id, detail=detail, log_bytes=int(match[3]))


def _meaning(flag: str) -> str:
    """Return a flag for a person."""
    word, _, ids = flag.partition("=")
    if word != LEFT:
        return word
    return (
        "containers that were started while it ran, past cvl's own docker or by somebody else, "
        f"still run there: if they are its own, `docker rm -f {ids.replace(',', ' ')}` ends them"
    )


def state_of(answers: Iterable[Answer], run_id: str) -> ExitStatus | None:
    """Return how a run has ended by the one answer that tells its state, None while it goes on.

    Raises `Unreadable` where none tells it, where several do and do not agree, and for a `result`
    that makes no sense.
    """
    told = {(answer.word, answer.rest) for answer in answers if answer.word in STATES}
    if len(told) != 1:
        raise unreadable(run_id, " / ".join(sorted(f"{word} {rest}" for word, rest in told)))
    word, rest = told.pop()
    if word == "unknown":
        return ended(Cause.LOST, run_id=run_id, detail="the machine knows no such run")
    return ending(rest, run_id) if word == "result" else None


def ending_in(file: Path, run_id: str) -> ExitStatus | None:
    """Return the ending that the first line of a file tells, None if there is no such file.

    Raises `Unreadable` for anything else that may be there: a link, a pipe, a folder, no record.
    """
    try:
        data = start_of(file, LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"{file} cannot be read: {error.strerror}") from error
    return ending(data.partition(b"\n")[0].decode("ascii", "replace").rstrip(" "), run_id)


def unreadable(run_id: str, text: str) -> Unreadable:
    """Return the error for what should have told how a run ended and does not."""
    return Unreadable(f"how {run_id} ended cannot be read: {shown(text)!r}")


def shown(text: str) -> str:
    """Return the beginning of a foreign text for a person: one short line, nothing that acts."""
    plain = "".join(each if each.isprintable() else " " for each in text[: SHOWN + 1])
    return f"{plain[:SHOWN]}…" if len(plain) > SHOWN else plain
