"""What all that we make out there bears: our name, and tags that say whose it is.

So it is found, judged and ended from any machine, without local state. Whoever has stored the
tags may have damaged them: they are read within bounds, and what nobody can read says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Self

from cvl.core import replies
from cvl.core.frozen import dataclass
from cvl.core.spec import Resource

PREFIX = "cvl-"
RUN, OWNER, DEADLINE, CAUSE = "cvl-run", "cvl-owner", "cvl-deadline", "cvl-cause"
OURS = re.compile(r"[a-z0-9-]+-\d{4}-\d{6}-[0-9a-f]{10}\Z")
"""Run ids that cvl has made: they end in a time and 40 random bits."""
LONGEST_OWNER = 64


def name_of(run_id: str) -> str:
    """Return the name of what a run makes: ours, and it carries the run id (at most 44)."""
    return f"{PREFIX}{run_id}"


def run_of(name: object) -> str:
    """Return the run whose name something bears, "" for none."""
    label = replies.text(name)
    return replies.run_id(label.removeprefix(PREFIX)) if label.startswith(PREFIX) else ""


def surely_run_of(name: object) -> str:
    """As `run_of`, of run ids that nobody else makes up: where nothing but the name tells."""
    run_id = run_of(name)
    return run_id if OURS.match(run_id) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Whose something is: its run, the id of the ledger that has it, its last UTC epoch second."""

    run_id: str
    owner: str = ""
    deadline: float | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The tags that say so."""
        due = {} if self.deadline is None else {DEADLINE: str(int(self.deadline))}
        return {RUN: self.run_id, OWNER: self.owner, **due}

    @classmethod
    def read(cls, tags: Mapping[str, object]) -> Self:
        """Return what tags say; without a run id they are not ours, or cannot be read."""
        return cls(
            run_id=replies.run_id(tags.get(RUN)),
            owner=replies.text(tags.get(OWNER))[:LONGEST_OWNER],
            deadline=replies.deadline(tags.get(DEADLINE)),
        )

    def on(self, resource: Resource) -> Resource:
        """Return what bears these marks."""
        return replace(resource, run_id=self.run_id, owner=self.owner, deadline=self.deadline)


def listed(tags: Mapping[str, str], key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Return tags as most clouds take them: a list of pairs."""
    return [{key: name, value: text} for name, text in tags.items()]


def unlisted(found: Iterable[object], key: str = "Key", value: str = "Value") -> dict[str, str]:
    """Return the tags that can be read in such a list."""
    pairs = map(replies.entry, found)
    tags = {replies.text(each.get(key)): replies.text(each.get(value)) for each in pairs}
    tags.pop("", None)
    return tags
