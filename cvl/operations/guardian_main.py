"""The guardian: watches over one run, and brings it to its end when nobody else does.

While its client lives it only waits, and has loaded next to nothing.
Then `cvl.operations.takeover` brings the run to its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from cvl.cleanup.guardian_client import LATE, RELEASE
from cvl.cleanup.guardian_keeper import DONE, KEEP
from cvl.core.secrets import leave_no_core
from cvl.operations.guardian_listener import LOOK, Listener

if TYPE_CHECKING:
    from cvl.ledger import Ledger


def main(run_id: str) -> int:
    """Guard one run; return 0 once nothing of it is open.

    Without the keys, which the client sends first, nothing can be ended: 1, for who has them to do.
    """
    from cvl.core.paths import ledger_file
    from cvl.core.process import me
    from cvl.ledger import Ledger

    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    leave_no_core()
    listener = Listener(os.getppid())
    keys = _line()
    if not keys.endswith(b"\n"):
        return 1  # the client died before it had sent them
    secrets = json.loads(keys)
    ledger = Ledger(ledger_file())
    ledger.note(run_id, guardian=me())
    record = ledger.run(run_id)
    listener.listen()
    with suppress(BrokenPipeError):  # it has died by now, which is what we are for
        os.write(1, b"ready\n")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    word = listener.word()
    if word == KEEP:
        word = kept(listener, ledger, run_id)
    if word == DONE:
        return 0
    from cvl.operations.takeover import take_over

    return take_over(record, word, secrets, listener)


def kept(listener: Listener, ledger: Ledger, run_id: str) -> str:
    """Wait until the limit, until told to release, or until somebody else has ended the run."""
    from cvl.core.errors import LedgerError

    while not listener.hurried and listener.left() != 0:
        with suppress(LedgerError):
            if ledger.run(run_id).state == "ended":
                return DONE
        listener.pause(LOOK)
    return RELEASE if listener.hurried else LATE


def _line() -> bytes:
    """Read one line from the pipe and not a byte more."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
