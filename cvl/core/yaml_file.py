"""A YAML file of the user's: its bytes, read once and bounded, and the form that it must have.

What has another form is one sentence with its place: no reader further in meets it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cvl.core import replies
from cvl.core.errors import UsageError
from cvl.core.regular_file import AS_FILE
from cvl.core.scope import Scope

Where = tuple[str, ...]
"""Where a value is: `("spec", "containers", "[job]", "image")`."""
Form = Mapping[str, Any] | list[Any] | str | None
"""What a value must be: pairs with these forms (`*`: any other key's), a list of one form, text or
a `SWITCH` in a person's words, or anything at all (None)."""
SWITCH = "true or false"
PAIRS: Form = {}
YES, NO = frozenset({"true", "yes", "on", "y"}), frozenset({"false", "no", "off", "n", ""})
WAIT = 10.0
"""Seconds that a pipe in place of a file may take: a shell's `<(…)` is one."""
BLOCK = 1 << 16


def content(path: Path, most: int) -> bytes:
    """Return what stands in a file, or comes from a pipe. Raises `UsageError`."""
    try:
        descriptor = os.open(path, AS_FILE)
        try:
            return replies.taken(_blocks(descriptor), most)
        finally:
            os.close(descriptor)
    except replies.TooLong:
        raise UsageError(f"{path} cannot be read: it has more than {most >> 10} KiB") from None
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


def without_nulls(value: Any) -> Any:
    """Return data without its nulls: to say null is to say nothing."""
    if isinstance(value, Mapping):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value if each is not None]
    return value


def wrong(value: object, form: Form, where: Where = ()) -> Iterator[str]:
    """Yield a sentence about each part of a value that has another form."""
    if isinstance(form, Mapping) and isinstance(value, Mapping):
        for key, each in value.items():
            yield from wrong(each, form.get(key, form.get("*")), (*where, key))
    elif isinstance(form, list) and isinstance(value, list):
        for number, each in enumerate(value):
            name = each.get("name") if isinstance(each, Mapping) else None
            place = f"[{name if isinstance(name, str) else number}]"
            yield from wrong(each, form[0], (*where, place))
    elif isinstance(form, Mapping):
        yield f"{shown(where)} must be key: value pairs"
    elif isinstance(form, list):
        yield f"{shown(where)} must be a list"
    elif form and not (isinstance(value, str) and (form != SWITCH or value.lower() in YES | NO)):
        yield f"{shown(where)} must be {form}"


def shown(where: Where) -> str:
    """Return a value's place as people write it: `spec.containers[job].image`."""
    return ".".join(where).replace(".[", "[")
