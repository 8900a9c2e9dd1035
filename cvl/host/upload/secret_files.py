"""What stays on this machine although it lies in the tree: secrets, by name and by content.

One rule for every way by which files travel. A name is enough for what exists only to hold
secrets; keys lie under any name, so they are told by what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Patterns are compiled when there is something to look at: most trees hold no such thing.
NAMED = (
    rb"(?i)(?:\A|/)(?:"
    rb"\.env(?!(?:\.[^/]*)?\.(?:example|sample|template|dist)(?:/|\Z))[^/]*"
    rb"|[._]netrc|\.git-credentials|\.pgpass|\.pypirc|\.s3cfg|\.boto|\.dockercfg|\.vault-token"
    rb"|\.aws|\.ssh|\.gnupg|\.kube|\.azure|\.kaggle|kaggle\.json"
    rb"|\.docker/config\.json|\.config/(?:gcloud|gh)"
    rb")(?=/|\Z)"
)
"""Files and folders that hold a person's secrets; where names differ only by case, all of them."""

HINTS = (b"\0.", b"/.", b"_netrc", b"kaggle.json")
"""What some path must hold, or a NUL before it, for `NAMED` to find anything."""

KEY = (
    rb"(?:\A|[\r\n])[ \t]*+-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY"
    rb"|-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
    rb"(?:(?:\\++[rn]|\s){1,9}[\w+/=]{16}"
    rb"|(?:\\++(?:u000[aAdD]|[rn])|%0[aAdD]|[\s\"'+,#>*\\]){0,99}+(?:[A-Za-z0-9+/]{40}|Proc-Type:))"
)
"""A private key of OpenSSL, OpenSSH or PGP: at the start of a line, or, as in JSON or in a program,
with its first words behind it. A program that only looks for such a line holds neither."""

ENCODED = rb"LS0tLS1CRUdJTi(?:BSU0EgUFJJV|BQUklWQVRF|BFQyBQUklWQ|BPUEVOU1NI|BFTkNSWVBU|BEU0EgUFJJV)"
"""The same in base64, as in the configuration of a cluster."""

WIDE = (b"P\0R\0I\0V\0A\0T\0E", b"P\0\0\0R\0\0\0I\0\0\0V")

MARKS = b"\xef\xbb\xbf\xff\xfe \t\r\n"
"""What may stand before a text: marks of how it is written, and blanks."""

TOKEN = rb"_(?:authToken|auth|password)[ \t]*+=[ \t]*+[^\s$]"
"""A token in an `.npmrc` that is not taken from a variable."""


def named(path: bytes) -> bytes:
    """Return the part of a path, from its start, that names a secret; b"" if none does."""
    match = re.search(NAMED, path)
    return path[: match.end()] if match else b""


def any_named(paths: Sequence[bytes]) -> bool:
    """Return whether one of them may name a secret: one look at all of them."""
    joined = b"\0".join((b"", *paths)).lower()
    return any(hint in joined for hint in HINTS)


def inside(path: bytes, start: bytes) -> str:
    """Return what secret a file holds that starts so, in words; "" if it seems to hold none."""
    wide = b"\0" in start and (WIDE[0] in start or WIDE[1] in start)
    text = _narrow(start, wide=wide) if wide or start[:1] in MARKS else start
    if b"PRIVATE KEY" in text and re.search(KEY, text):
        return "a private key"
    if text.startswith(b"PuTTY-User-Key-File-"):
        return "a private key"
    if b"LS0tLS1CRUdJTi" in text and re.search(ENCODED, text):
        return "a private key"
    if path.endswith(b".npmrc") and re.search(TOKEN, start):
        return "a token"
    return ""


def _narrow(start: bytes, *, wide: bool) -> bytes:
    """Return a text of two or four bytes a letter, as Windows writes it, in one; without a mark."""
    if wide or start[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        start = start.replace(b"\0", b"")
    return start[:8].lstrip(MARKS) + start[8:]
