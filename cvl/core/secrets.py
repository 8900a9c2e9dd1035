"""Secrets: taken out of the environment, and cut out of what is said.

Nothing of ours prints a secret. `clean` is the second net, for texts that others have written: a
library's exception may hold a whole header, and a header holds the key.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

OURS: dict[str, None] = {}
"""Variables that no child of ours is ever in need of: `keep_ours` has named them."""
SHORTEST, SHORT = 8, 12
"""Characters from which a secret is cut out of texts: shorter ones are words like `true`. A
variable counts from `SHORT` on, unless its name says that it is a secret."""
NAMED = r"(?i)KEY|TOKEN|SECRET|PASS|CRED|AUTH"
PLAIN = re.compile(r"[A-Za-z0-9._~-]*")
"""What every notation leaves as it is."""
REDACTED = "<redacted>"
SHAPES = (
    ("Bearer ", r"(Bearer )[^'\"\\]+", rf"\1{REDACTED}"),
    ("-HMAC-", r"(-HMAC-SHA256 )[^'\"\\]+", rf"\1{REDACTED}"),
    ("X-", r"(X-\w+-(?:Signature|Security-Token)=)[^&\s'\"]+", rf"\1{REDACTED}"),
    ("://", r"(?<=://)[^/@\s:]*:[^/@\s]+(?=@)", REDACTED),
)
"""What a header or an address looks like that lets somebody in: a word that is quickly looked for,
a pattern, what to say instead."""

_TAKEN: dict[str, str] = {}
_OURS: list[bool] = []
_KNOWN: dict[str, None] = {}


def own_process(names: Iterable[str]) -> None:
    """Say that nothing but cvl lives in this process: it is the command line, not a library.

    Then our own secrets leave the environment, which every child would inherit.
    """
    _OURS.append(True)
    keep_ours(names)


def keep_ours(names: Iterable[str]) -> None:
    """Say which variables hold secrets that no child of ours is ever in need of."""
    for name in names:
        OURS[name] = None
        if _OURS:
            secret(name)


def secret(name: str) -> str:
    """Return a variable that holds a secret, as it stands there, "" if there is none.

    In a process of our own it leaves the environment, which every child would inherit, and no
    core file is written from now on, for it would hold the secret.
    """
    if _OURS and name in os.environ:
        _TAKEN[name] = os.environ.pop(name)
        leave_no_core()
    value = _TAKEN.get(name) or os.environ.get(name, "")
    learn(value)
    return value


def whole() -> Mapping[str, str]:
    """Return the environment that this process was started with, secrets and all."""
    return {**os.environ, **_TAKEN}


def learn(*values: str) -> None:
    """Keep these out of every message from now on, each line of them also by itself."""
    for value in values:
        for part in (value, value.strip(), *value.split("\n")):
            if len(part.strip()) >= SHORTEST:
                _KNOWN[part] = None


def learn_variables(variables: Mapping[str, str]) -> None:
    """Keep the values of forwarded variables out of every message from now on."""
    learn(*(v for name, v in variables.items() if len(v) >= SHORT or re.search(NAMED, name)))


def clean(text: str) -> str:
    """Return a text without any secret that this process knows, or that looks like one."""
    for value in sorted(_KNOWN, key=len, reverse=True):
        for form in forms(value):
            text = text.replace(form, REDACTED)
    for word, shape, instead in SHAPES:
        if word in text:
            text = re.sub(shape, instead, text)
    return text


@functools.cache
def forms(value: str) -> tuple[str, ...]:
    """Return how a value may be written in a text.

    As it is, as Python, JSON, a shell or an address shows it, or as a Secret of a cluster holds it.
    """
    texts = [value]
    if not PLAIN.fullmatch(value):
        from json import dumps
        from shlex import quote

        shown = [repr(value), ascii(value), dumps(value), dumps(value, ensure_ascii=False)]
        texts += [each[1:-1] for each in shown]
        texts += [quote(value)[1:-1], value.replace("'", "'\\''")]
        texts += [repr(each)[1:-1] for each in texts]  # once more, in the text of an exception
    if encodable(value):
        texts += _of_bytes(os.fsencode(value), plain=len(texts) == 1)
    return tuple(sorted({each for each in texts if len(each) >= SHORTEST}, key=len, reverse=True))


def _of_bytes(value: bytes, *, plain: bool) -> list[str]:
    from binascii import b2a_base64

    whole = len(value) // 3 * 3  # what comes after the last three changes with what follows
    texts = [b2a_base64(value[:whole], newline=False).decode()]
    if not plain:
        from urllib.parse import quote, quote_plus

        texts += [repr(value)[2:-1], quote(value, safe="/"), quote_plus(value)]
    return texts


def encodable(value: str) -> bool:
    """Return whether a value has bytes: a lone surrogate that stands for no byte has none."""
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def leave_no_core() -> None:
    """Have no core file written should this process crash."""
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
