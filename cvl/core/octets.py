"""Text that stands for bytes of the system: arguments, variables, paths and names.

Such bytes are not always UTF-8. Python reads what is not as lone surrogates (PEP 383), and they go
back to the system as the very bytes that they were. That holds in UTF-8 alone, whatever the
locale: so the command `cvl` and its guardians run in Python's UTF-8 mode, and all text in a process
is of one kind, can be compared, and can be a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvl.core.errors import UsageError

ESCAPE = "surrogateescape"


def octets(text: str) -> bytes:
    """Return the bytes that a text of the system stands for.

    Raises `UnicodeEncodeError` for half a character that stands for no byte.
    """
    return text.encode("utf-8", ESCAPE)


def seen(text: str) -> str:
    """Return a text of the system for one who reads UTF-8 only, as far as it is text at all."""
    if not _broken(text):
        return text
    from locale import getencoding  # what was typed is in that of the terminal

    try:
        return octets(text).decode(getencoding())
    except UnicodeError:
        return text


def plain(text: str, what: str, reader: str) -> str:
    """Return a text of the system for an API, which reads UTF-8 only.

    Raises `UsageError`, without the text, where its bytes are no text at all.
    """
    readable_text = seen(text)
    if _broken(readable_text):
        raise UsageError(
            f"{what} is no text: it holds bytes that are not UTF-8", f"{reader} takes text"
        )
    return readable_text


def readable(value: Any, reader: str) -> Any:
    """Return what an API is asked for, all its texts UTF-8. Raises `UsageError` as `plain`."""
    if isinstance(value, str):
        return plain(value, "what is asked for", reader)
    if isinstance(value, Mapping):
        return {readable(key, reader): readable(each, reader) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [readable(each, reader) for each in value]
    return value


def to_send(value: object, reader: str) -> bytes:
    """Return as JSON what an API is sent. Raises `UsageError` as `plain`."""
    from json import dumps

    return dumps(readable(value, reader)).encode()


def _broken(text: str) -> bool:
    """Return whether there are halves of characters in it."""
    return not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text)
