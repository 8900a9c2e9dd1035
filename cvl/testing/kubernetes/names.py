"""Names and labels: what they may look like, in the server's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

Cause = tuple[str, str]
"""A field, and what is wrong with it."""

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
SERVICE = "[a-z]([-a-z0-9]*[a-z0-9])?"
VALUE = "[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
LABEL_LIMIT, SUBDOMAIN_LIMIT = 63, 253
"""Characters."""


def wrong(field: str, value: object, why: str) -> Cause:
    """Return the complaint about a field's value."""
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return field, f"Invalid value: {shown}: {why}"


def named(field: str, name: str, pattern: str) -> Iterator[Cause]:
    """Yield what is wrong with a name, which is to be as the pattern says."""
    if not re.fullmatch(pattern, name):
        yield wrong(field, name, f"regex used for validation is '{pattern}'")
    limit = SUBDOMAIN_LIMIT if pattern == SUBDOMAIN else LABEL_LIMIT
    if len(name) > limit:
        yield wrong(field, name, f"must be no more than {limit} characters")


def labels(field: str, found: Mapping[str, str]) -> Iterator[Cause]:
    """Yield what is wrong with labels."""
    for key, value in found.items():
        prefix, slash, last = key.rpartition("/")
        if slash:
            yield from named(field, prefix, SUBDOMAIN)
        yield from named(field, last, VALUE)
        yield from named(field, value, VALUE) if value else ()
