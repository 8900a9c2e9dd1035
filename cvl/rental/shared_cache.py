"""What one of our processes has just asked a provider, the others need not ask again.

Twenty runs that look at their machines share the account's rate limit; what they look at is one
list. An answer serves whoever wanted it before it was asked for: it is as new as one of its own.
"""

from __future__ import annotations

import json
from contextlib import suppress

from cvl.core.paths import private, replace_file, state_dir
from cvl.core.process import boot_id

SECRET = frozenset({"jupyter_token", "jupyter_url", "private_key"})
"""Fields of an entry that nobody here needs, and that do not belong into a file."""


class Answers:
    """The last answer to one question, of all processes of this user and this boot."""

    def __init__(self, name: str) -> None:
        """`name` is the question's own: one file of our state folder."""
        self._path = state_dir() / "pace" / f"{name}.json"

    def since(self, moment: float) -> list[object] | None:
        """Return an answer that was asked for later than `moment` (monotonic), None without one."""
        try:
            answer = json.loads(self._path.read_bytes())
            if answer["boot"] == boot_id() and answer["asked"] > moment:
                data: list[object] = answer["data"]
                return data
        except (OSError, ValueError, LookupError, TypeError):
            pass
        return None

    def keep(self, asked: float, data: object) -> None:
        """Let others have an answer that was asked for at `asked`; what cannot be kept is not."""
        if not isinstance(data, list):
            return
        entries = [_public(entry) for entry in data]
        text = json.dumps({"boot": boot_id(), "asked": asked, "data": entries})
        with suppress(OSError):
            private(self._path.parent)
            replace_file(self._path, text.encode())


def _public(entry: object) -> object:
    if not isinstance(entry, dict):
        return entry
    return {key: value for key, value in entry.items() if key not in SECRET}
