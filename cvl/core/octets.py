"""Text that stands for bytes of the system: arguments, variables, paths and names.

Python reads them by the locale, and what cannot be read so as lone surrogates (PEP 383). They go
back to the system as the very bytes that they were, which are not always UTF-8. What is UTF-8 by
its nature (a YAML file, a note of ours) is read as the system would read its bytes: so all text in
a process is of one kind, can be compared, and can be a path.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from cvl.core.errors import UsageError

ESCAPE = "surrogateescape"
UTF8 = sys.getfilesystemencoding() == "utf-8" and sys.getfilesystemencodeerrors() == ESCAPE
"""Whether the locale reads bytes as UTF-8: then a text is the same here and everywhere."""
Change = Callable[[str], str]


def octets(text: str) -> bytes:
    """Return the bytes that a text of the system stands for.

    A character that the locale lacks did not come from the system: it is written as UTF-8.
    Raises `UnicodeEncodeError` for half a character that stands for no byte.
    """
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return utf8(text)


def utf8(text: str, errors: str = ESCAPE) -> bytes:
    """Return the bytes of a text that is UTF-8 by its nature: no text of the system."""
    return text.encode("utf-8", errors)


def shared(text: str) -> str:
    """Return a text of the system as every process reads it, whatever its locale: as UTF-8."""
    try:
        return text if UTF8 else octets(text).decode("utf-8", ESCAPE)
    except UnicodeEncodeError:
        return text


def own(text: str) -> str:
    """Return as a text of the system here what `shared` has made, or what a file in UTF-8 says."""
    try:
        return text if UTF8 else os.fsdecode(utf8(text))
    except UnicodeEncodeError:
        return text


def everywhere(value: Any, change: Change) -> Any:
    """Return a value as JSON, YAML and TOML know them, with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {everywhere(key, change): everywhere(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [everywhere(each, change) for each in value]
    return value


def dumped(value: object, **options: Any) -> str:
    """Return as JSON, in ASCII, what `loaded` reads in any locale."""
    from json import dumps

    return dumps(value if UTF8 else everywhere(value, shared), **options)


def loaded(data: bytes | str) -> Any:
    """Return what `dumped` has written. Raises `ValueError` and `RecursionError`."""
    from json import loads

    return loads(data) if UTF8 else everywhere(loads(data), own)


def seen(text: str) -> str:
    """Return a text of the system for one who reads UTF-8 only, as far as it is text at all."""
    return next((candidate for candidate in (shared(text), text) if not _broken(candidate)), text)


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
    return everywhere(value, lambda text: plain(text, "what is asked for", reader))


def to_send(value: object, reader: str) -> bytes:
    """Return as JSON what an API is sent. Raises `UsageError` as `plain`."""
    from json import dumps

    return dumps(readable(value, reader)).encode()


def _broken(text: str) -> bool:
    """Return whether there are halves of characters in it."""
    return not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text)
