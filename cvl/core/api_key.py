"""A key that a provider has given out, checked where it is read."""

from __future__ import annotations

from cvl.core.errors import UsageError
from cvl.core.secrets import learn

MOST = 8192
"""Characters of a key: more is another file, or a mistake."""
AGAIN = "set it again, exactly as the provider shows it"


def checked(value: object, name: str) -> str:
    """Return a key that can stand in a header; `name` is the variable or the argument it is in.

    White space around it comes from copying, and is left out. Raises `UsageError` for what no
    provider gives out, never with the value in it.
    """
    key = value.strip() if isinstance(value, str) else None
    if key is None:
        raise UsageError(f"{name} is no text but {type(value).__name__}", "give the key as text")
    learn(key)
    if len(key) > MOST:
        raise UsageError(f"{name} is no key: it is {len(key)} characters long", AGAIN)
    if not all("!" <= character <= "~" for character in key):
        raise UsageError(
            f"{name} is no key: it holds a space, a line break or a character that is not ASCII",
            AGAIN,
        )
    return key
