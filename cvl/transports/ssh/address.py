"""What a person writes for a host, and how a command is written for its login shell."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass

BARE = re.compile(r"[A-Za-z0-9_./-]+\Z")
"""Words that mean themselves in every shell."""
ESCAPED = re.compile(r"['\\!]")
PORTS = range(1, 1 << 16)
STRANGE = re.compile(r"""[\s\0-\x1f\x7f/\[\]'`"$\\;&<>|(){}]""")
"""What no host's name holds. Of these ssh puts some into a shell's line, for a `ProxyCommand` with
%h: it refuses them itself only since 9.6 (CVE-2023-51385)."""
STRANGE_USER = re.compile(r"""[\s\0-\x1f\x7f/\[\]'`";&<>|(){}]|\\\Z""")
"""The same for users: a domain's stand before a backslash."""
FORBIDDEN = re.compile(r"[\0\n]")
HINT = "give HOST, USER@HOST, USER@HOST:PORT, ssh://USER@HOST:PORT or a name from your ssh_config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where to connect. `None` is left to the user's ssh_config; `name` may be an alias."""

    name: str
    user: str | None = None
    port: int | None = None


def parse(host: str) -> Destination:
    """Read every form in which ssh, and people, write a host. Raises `UsageError`."""
    text = host.removeprefix("ssh://")
    if text != host:
        text = text.removesuffix("/")
    user, at, place = text.rpartition("@")
    name, port = _split_port(place)
    if at and text != host:
        from urllib.parse import unquote

        user = unquote(user)
    for word, strange in ((name, STRANGE), (user, STRANGE_USER))[: 2 if at else 1]:
        if not word or word.startswith("-") or strange.search(word):
            raise UsageError(f"not a host: {host!r}", HINT)
    return Destination(name=name, user=user if at else None, port=port)


def command(argv: Sequence[str]) -> str:
    """Write `argv` so that any login shell (sh, bash, fish, csh, busybox) runs exactly it.

    Raises `ValueError` for a line break or NUL: there is no one way to write those. What a user
    typed does not belong here anyway, but on standard input.
    """
    words = argv[1:] if argv[:1] == ("exec",) or argv[:1] == ["exec"] else argv
    return " ".join(["exec", *map(_quote, words)])


def _split_port(place: str) -> tuple[str, int | None]:
    """Take `[::1]:22`, `[::1]`, `::1`, `name:22` or `name` apart."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(\d+))?", place)
    plain = re.fullmatch(r"([^:]*):(\d+)", place)
    match = bracketed or plain
    if not match:
        if place.count(":") == 1:
            raise UsageError(f"not a host: {place!r}", HINT)
        return place, None
    port = int(match[2]) if match[2] else None
    if port is not None and port not in PORTS:
        raise UsageError(f"not a port: {match[2]}", HINT)
    return match[1], port


def _quote(word: str) -> str:
    """Single quotes, outside of which stand the three that not all shells leave alone inside."""
    if FORBIDDEN.search(word):
        raise ValueError("a line break or NUL cannot be written for every shell")
    if BARE.match(word):
        return word
    return "'" + ESCAPED.sub(lambda match: rf"'\{match[0]}'", word) + "'"
