"""What an exception of urllib3 means: one reading of its whole family, for all who use it.

Besides its own it lets through what the standard library below it says (sockets, TLS, host names
that cannot be encoded), and plain errors of Python where an address or a header is impossible.
Whether a request arrived, only `NEVER` and `WRONG` tell.
"""

from __future__ import annotations

from enum import Enum, auto

from cvl.core.errors import LONGEST


class Trouble(Enum):
    """What became of a request."""

    WRONG = auto()
    """It cannot be made as it is: an address, a proxy, a header. Asking again changes nothing."""
    UNTRUSTED = auto()
    """The server's certificate is not one that we trust: nothing was sent."""
    NEVER = auto()
    """There was no connection: nothing was sent."""
    BROKEN = auto()
    """No answer, or none that is whole: nobody knows what arrived."""


def trouble(error: BaseException) -> Trouble:
    """Return what an exception means that was raised while a request was made or read."""
    import zlib
    from http.client import HTTPException
    from ssl import SSLCertVerificationError

    from urllib3 import exceptions

    inner = beneath(error)
    if isinstance(inner, exceptions.LocationValueError | exceptions.ProxySchemeUnsupported):
        return Trouble.WRONG
    if isinstance(inner, UnicodeError):  # a host name with a part of 64 characters, or of none
        return Trouble.WRONG
    if isinstance(inner, exceptions.NewConnectionError):
        return Trouble.NEVER
    if isinstance(inner, SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(inner):
        return Trouble.UNTRUSTED
    passing = (exceptions.HTTPError, OSError, HTTPException, EOFError, zlib.error, RuntimeError)
    return Trouble.BROKEN if isinstance(inner, passing) else Trouble.WRONG


def beneath(error: BaseException) -> BaseException:
    """Return what stands behind an exception that only passes another on."""
    for _ in range(5):
        attributes = vars(error)  # not its properties: one of websockets warns whoever reads it
        inner = attributes.get("original_error") or attributes.get("reason")
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def reason(error: BaseException) -> str:
    """Return in one short line what an exception says; its kind where it says nothing."""
    from http.client import IncompleteRead

    inner = beneath(error)
    if inner.args and isinstance(inner.args[-1], BaseException):  # urllib3's own words, and whose
        inner = inner.args[-1]
    if isinstance(inner, IncompleteRead):
        return "it was cut short"
    text = " ".join(str(inner).split())
    _, mark, rest = text.partition(": ")  # urllib3 puts its connection's name first
    words = rest if (mark and "object at 0x" in text) or "Connection(host=" in text else text
    return words[:LONGEST] or type(inner).__name__
