"""One kubeconfig file, and the entries in it: bytes read once and bounded, into checked values.

Scalars keep the text that stands in the file: a name of digits is a name. What is of another
shape than the format has is one sentence, with its place: no reader further in meets it.
https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cvl.core import replies
from cvl.core.errors import UsageError
from cvl.core.scope import Scope

Entry = Mapping[str, Any]

LIMIT = 8 << 20
"""Bytes of a kubeconfig, and of a certificate, a key or a token that it names."""
VALUES = 100_000
LONGEST_NAME = 253
WAIT = 10.0
"""Seconds that a pipe in place of a file may take: a shell's `<(…)` is one."""
BLOCK = 1 << 16
KINDS = ("clusters", "users", "contexts")
YES, NO = frozenset({"true", "yes", "on", "y"}), frozenset({"false", "no", "off", "n", ""})
NAMED = "see `kubectl config view`"


def content(path: Path) -> bytes:
    """Return what stands in a file, or comes from a pipe. Raises `UsageError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return replies.taken(_blocks(descriptor), LIMIT)
        finally:
            os.close(descriptor)
    except replies.TooLong as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except (OSError, ValueError) as error:  # a path may hold what no path can
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {why}") from error


def _blocks(descriptor: int) -> Iterator[bytes]:
    limit = Scope(seconds=WAIT)
    while True:
        ready, _, _ = select.select([descriptor], [], [], limit.remaining())
        if not ready:
            raise TimeoutError(0, f"nothing came within {WAIT:g} s")
        block = os.read(descriptor, BLOCK)
        if not block:
            return
        yield block


def there_is(path: Path) -> bool:
    """Return whether there is something of that name, whether or not it can be read."""
    try:
        os.stat(path)  # noqa: PTH116 - `exists` raises where a folder on the way is closed
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def read(path: Path) -> Mapping[str, Any]:
    """Return a kubeconfig: `current-context`, and of each of `KINDS` the entries by their names.

    Raises `UsageError`, with file and line.
    """
    from cvl.core.yaml_document import EMPTY, parse

    document = parse(content(path), values=VALUES, text=LIMIT)
    if document.data is None:
        line, why = document.notes[0]
        if why == EMPTY:
            return {"current-context": "", **{kind: {} for kind in KINDS}}
        raise UsageError(f"{path}, line {line}: no kubeconfig: {why}")
    at = _Place(path, document.lines)
    current = document.data.get("current-context")
    if not isinstance(current, str | None) or len(current or "") > LONGEST_NAME:
        raise at.wrong("current-context", ("current-context",), "a name", current)
    entries = {kind: dict(_entries(at, kind, document.data.get(kind))) for kind in KINDS}
    return {"current-context": current or "", **entries}


class _Place:
    """A file, and where in it each key stands."""

    def __init__(self, path: Path, lines: Mapping[tuple[str, ...], int]) -> None:
        self._path, self._lines = path, lines

    def wrong(self, what: str, keys: tuple[str, ...], wanted: str, found: object) -> UsageError:
        near = (keys[:count] for count in range(len(keys), 0, -1))
        line = next((self._lines[each] for each in near if each in self._lines), 0)
        where = f"{self._path}, line {line}" if line else str(self._path)
        return UsageError(f"{where}: `{what}` must be {wanted}, not {shape(found)}", NAMED)


def _entries(at: _Place, kind: str, listed: object) -> Iterator[tuple[str, Entry]]:
    """Yield name and content of each; the first of a name comes last, for it counts."""
    if not isinstance(listed, list | None):
        raise at.wrong(kind, (kind,), "a list", listed)
    for number, each in reversed(list(enumerate(listed or ()))):
        if each is None:
            continue
        keys, one = (kind, str(number)), kind[:-1]
        if not isinstance(each, dict):
            raise at.wrong(f"{kind}[{number}]", keys, f"a name and a {one}", each)
        name, entry = each.get("name"), each.get(one)
        if not isinstance(name, str | None):
            raise at.wrong("name", (*keys, "name"), "text", name)
        if not isinstance(entry, dict | None):
            raise at.wrong(one, (*keys, one), "a mapping", entry)
        yield name or "", entry or {}


def shape(value: object) -> str:
    """Return for a person what kind of value this is."""
    if isinstance(value, str):
        return repr(value[:40])
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), "that")


Reader = Callable[[object], Any]


def checked(entry: Entry, forms: Mapping[str, Reader], whose: str) -> Entry:
    """Return an entry whose values are as `forms` read them. Raises `UsageError`.

    What is null is left out; what `forms` does not name stays as it is.
    """
    values = {}
    for name, value in entry.items():
        if value is None:
            continue
        try:
            values[name] = forms[name](value) if name in forms else value
        except TypeError as error:
            raise UsageError(
                f"`{name}` of {whose} in the kubeconfig must be {error}, not {shape(value)}", NAMED
            ) from None
    return values


def text(value: object) -> str:
    """Return text. Raises `TypeError`, as all here do, with what is wanted."""
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def switch(value: object) -> bool:
    """Return whether something is on."""
    word = value.lower() if isinstance(value, str) else None
    if word not in YES | NO:
        raise TypeError("true or false")
    return word in YES


def texts(value: object) -> list[str]:
    """Return a list of texts."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError("a list of texts")
    return list(value)


def variables(value: object) -> list[Entry]:
    """Return the variables that a program is given."""
    pairs: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in pairs):
        raise TypeError("a list of names and values")
    return [{"name": each["name"], "value": text(each.get("value") or "")} for each in pairs]


def lists(value: object) -> Mapping[str, list[str]]:
    """Return lists of texts by name."""
    if not isinstance(value, dict):
        raise TypeError("lists by name")
    return {name: texts(each) for name, each in value.items()}


def extensions(value: object) -> list[Entry]:
    """Return what others keep in the file; what has no name is left out."""
    return [each for each in replies.entries(value) if isinstance(each, dict)]


PLUGIN: Mapping[str, Reader] = {
    **dict.fromkeys(("apiVersion", "command", "installHint", "interactiveMode"), text),
    "args": texts,
    "env": variables,
    "provideClusterInfo": switch,
}


def plugin(value: object) -> Entry:
    """Return what says how to run a credential program."""
    if not isinstance(value, dict):
        raise TypeError("a mapping")
    return checked(value, PLUGIN, "the exec plugin")


CLUSTER: Mapping[str, Reader] = {
    **dict.fromkeys(("server", "tls-server-name", "proxy-url"), text),
    **dict.fromkeys(("certificate-authority", "certificate-authority-data"), text),
    **dict.fromkeys(("insecure-skip-tls-verify", "disable-compression"), switch),
    "extensions": extensions,
}
USER: Mapping[str, Reader] = {
    **dict.fromkeys(("token", "tokenFile", "username", "password", "as", "as-uid"), text),
    **dict.fromkeys(("client-certificate", "client-certificate-data"), text),
    **dict.fromkeys(("client-key", "client-key-data"), text),
    "as-groups": texts,
    "as-user-extra": lists,
    "exec": plugin,
}
CONTEXT: Mapping[str, Reader] = dict.fromkeys(("cluster", "user", "namespace"), text)
"""How each value of an entry is read; others are not looked at."""
