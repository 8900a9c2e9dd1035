"""Everything that can go wrong on our side, as one tree.

::

    CvlError                     exit 125, as in `docker run`
    ├── NotAgreed                asked, the user said no; exit 130 for Ctrl-C
    ├── UsageError               exit 2: the command line, a file or a value is wrong
    │   ├── NotFound             no such example, preset, run or runner
    │   └── Ambiguous            more than one fits
    ├── MissingTool              a program is not installed here
    │   └── MissingExtra         a Python package is not: what needs it can do nothing at all
    ├── UsedUp                   this machine has no more file descriptors, or memory
    ├── HostError                a machine that we were given
    │   ├── Unreachable          no connection: may pass, worth a retry
    │   │   ├── NotConnected     there never was one: nothing can have been started
    │   │   └── Silent           there is one, but nothing comes
    │   ├── HostKeyError         unknown or changed host key: never connect
    │   ├── AuthError            the host or the provider does not accept who we are
    │   ├── NotReady             reached, but it lacks something (sh, space, Docker, Python)
    │   └── Unreadable           it answered something that cannot be read: nothing is known
    ├── ProviderError            a provider's API said no
    │   ├── NoCapacity           nothing to be had now: may pass
    │   ├── Rejected             definitely nothing was created
    │   │   └── Missing, Taken, Denied: no such thing, the name is in use, we may not
    │   └── Ambiguity            nobody knows yet: settle by listing for our name
    ├── FetchError               results could not be brought back
    │   ├── BrokenOff            they ended before their end: may pass, worth a retry
    │   └── Blocked              no retry helps: something has to be changed first, mostly here
    ├── LostContact              the job lives on; the hint says how to get it back
    ├── Elsewhere                who is asked is not who it was: what they lack may be there
    ├── StillOpen                something may still cost money; the hint says how to end it
    └── LedgerError              our own record cannot be read or written

A message says what happened and to what; `hint` says what to do now. Neither ever holds a secret:
what a library has said may be part of it.
"""

from __future__ import annotations

from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM

from cvl.core.secrets import clean


class CvlError(Exception):
    """The root. `str(error)` is one sentence for a person."""

    exit_code = 125
    wait = 0.0
    """Seconds for which whoever answered wants to be left alone (HTTP's Retry-After)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(clean(message))
        self.hint = clean(hint)


class NotAgreed(CvlError):
    """The user was asked and did not agree: what was asked for is not done."""

    def __init__(self, message: str, *, interrupted: bool = False) -> None:
        super().__init__(message)
        if interrupted:
            self.exit_code = 130


class UsageError(CvlError):
    """The caller has to change something before trying again."""

    exit_code = 2


class NotFound(UsageError):
    """Nothing has that name; the hint names what is near."""


class Ambiguous(UsageError):
    """More than one thing has that name; the hint lists them."""


class MissingTool(CvlError):
    """A program is missing here; the hint says what to install."""


class MissingExtra(MissingTool):
    """A Python package is missing, too old or damaged; the hint says how to install it."""


class UsedUp(CvlError):
    """What a connection needs is used up on this machine. No other one is to blame."""


class HostError(CvlError):
    """Something about a machine that we were told to use."""


class Unreachable(HostError):
    """No connection, or it broke. The only host error that is worth a retry."""

    answered = False
    """Whether somebody has answered all the same, if only that it is busy."""


class NotConnected(Unreachable):
    """There never was a connection, so nothing can have arrived over there."""


class Silent(Unreachable):
    """The machine takes the connection, and then gives nothing for as long as we wait."""


class HostKeyError(HostError):
    """The host's key is unknown or has changed. Nothing was sent."""


class AuthError(HostError):
    """The host or the provider does not accept our key."""


class NotReady(HostError):
    """Connected, but the machine lacks something that the run needs."""


class Unknown(NotReady):
    """The machine that is asked knows no such run."""


class Unreadable(HostError):
    """A host, or a file that it left, says something that cannot be read. Nothing is known."""


class ProviderError(CvlError):
    """A provider's API answered with an error."""


class NoCapacity(ProviderError):
    """The provider has none of these to give right now. Nothing was created."""


class Rejected(ProviderError):
    """The provider refused the request. Nothing was created."""


class Missing(Rejected):
    """There is no such thing."""


class Taken(Rejected):
    """The name is in use, or the thing is not the one that was meant."""


class Denied(Rejected):
    """We may not do that; the hint says what to ask for."""


class Ambiguity(ProviderError):
    """The outcome is unknown: the request may or may not have created something."""


class FetchError(CvlError):
    """Results could not be brought back; they are still where the run left them."""


class BrokenOff(FetchError):
    """What came ended before its end. Another attempt may bring it whole."""


class Blocked(FetchError):
    """Results have nowhere to go, or no way: a full disk here, a right that we lack.

    No repetition helps. The hint says what to change; the copy over there is kept for that.
    """


class LostContact(CvlError):
    """We cannot follow the job any more. It lives on."""


class Elsewhere(CvlError):
    """Whoever is asked now is not whom the run is on. Nothing follows from what they lack."""


class StillOpen(CvlError):
    """Something of ours was not seen gone and may still cost money."""


class LedgerError(CvlError):
    """The ledger cannot be read or written. It is never overwritten."""


LONGEST = 500
"""Characters of an error that are shown: it may quote an answer without end."""


def said(error: BaseException) -> str:
    """Return any error as one sentence; one that is none of ours begins with its kind."""
    text = clean(str(error))[:LONGEST]
    return text if isinstance(error, CvlError) else f"{type(error).__name__}: {text}".rstrip(": ")


def explained(error: BaseException) -> str:
    """Return any error for one line: with what to do now, where it says so."""
    hint = error.hint if isinstance(error, CvlError) else ""
    return said(error) + (f" ({hint})" if hint else "")


SCARCE = frozenset({ENOMEM, EMFILE, ENFILE, ENOBUFS})


def used_up(error: BaseException) -> UsedUp | None:
    """Return what to raise if an error, or one behind it, is that this machine has no more."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, BaseException) or each in seen:
            continue
        if isinstance(each, OSError) and each.errno in SCARCE:
            return UsedUp(
                f"this machine cannot open another connection: {each.strerror}",
                "end other programs, or raise the limit (`ulimit -n`)",
            )
        seen.append(each)
        waiting += [each.__cause__, each.__context__, *each.args]
    return None
