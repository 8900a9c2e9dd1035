"""Names and labels: what they may look like, in the server's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

Cause = tuple[str, str]
"""A field, and what is wrong with it."""

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL_LIMIT, SUBDOMAIN_LIMIT = 63, 253
"""Characters."""

NOT_NEGATIVE = "must be greater than or equal to 0"
_SUBDOMAIN_HELP = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
    " '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used"
    r" for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_HELP = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and"
    " must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex"
    " used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SERVICE_HELP = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an"
    " alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or"
    " 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_VALUE_HELP = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or"
    " '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',"
    "  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_HELP = "name part must consist of alphanumeric characters, '-', '_' or '.'"


def wrong(field: str, value: object, why: str) -> Cause:
    """Return the complaint about a field's value."""
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return field, f"Invalid value: {shown}: {why}"


def label(field: str, name: str) -> Iterator[Cause]:
    """Yield what is wrong with a DNS label."""
    if not re.fullmatch(LABEL, name):
        yield wrong(field, name, _LABEL_HELP)
    if len(name) > LABEL_LIMIT:
        yield wrong(field, name, f"must be no more than {LABEL_LIMIT} characters")


def subdomain(field: str, name: str) -> Iterator[Cause]:
    """Yield what is wrong with a DNS name: what most objects are called by."""
    if not is_subdomain(name):
        yield wrong(field, name, _SUBDOMAIN_HELP)
    if len(name) > SUBDOMAIN_LIMIT:
        yield wrong(field, name, f"must be no more than {SUBDOMAIN_LIMIT} characters")


def service(field: str, name: str) -> Iterator[Cause]:
    """Yield what is wrong with a service's name."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield wrong(field, name, _SERVICE_HELP)
    if len(name) > LABEL_LIMIT:
        yield wrong(field, name, f"must be no more than {LABEL_LIMIT} characters")


def is_subdomain(name: str) -> bool:
    """Return whether that is a DNS name."""
    return re.fullmatch(rf"{LABEL}(\.{LABEL})*", name) is not None


def labels(field: str, found: Mapping[str, str]) -> Iterator[Cause]:
    """Yield what is wrong with labels."""
    for key, value in found.items():
        prefix, slash, last = key.rpartition("/")
        named = re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", last)
        if not named or (slash and not is_subdomain(prefix)):
            yield wrong(field, key, _KEY_HELP)
        elif len(last) > LABEL_LIMIT:
            yield wrong(field, key, f"name part must be no more than {LABEL_LIMIT} characters")
        if not re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", value):
            yield wrong(field, value, _VALUE_HELP)
        elif len(value) > LABEL_LIMIT:
            yield wrong(field, value, f"must be no more than {LABEL_LIMIT} characters")
