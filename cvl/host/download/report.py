"""What came of bringing a run's results, for a person: the same of every provider."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cvl.core.frozen import dataclass
from cvl.core.scope import Scope
from cvl.core.units import size
from cvl.host.download.results import Skipped

NAMED = 10_000
"""Results that are remembered as not brought, or moved."""
SHOWN = 5
"""Files that are named, of those that did not come and of those that made way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What came of a fetch: how much landed, what did not, what had to make way.

    `moved` names files of an earlier time that stood where a folder was needed, or the reverse,
    by their old and their new path. `inert` names what has a suffix, so that no tool acts on it:
    folders, and files that lie in none of those. `seen` is for `results.fresh`.
    """

    files: int
    size: int
    skipped: tuple[Skipped, ...]
    moved: tuple[tuple[bytes, bytes], ...]
    seen: Mapping[bytes, bytes]
    inert: tuple[bytes, ...] = ()

    def joined(self, other: Landed) -> Landed:
        """Return what came of both; of long lists, `NAMED` lines, first what stays there."""
        skipped = sorted((*self.skipped, *other.skipped), key=lambda each: not each.stays)
        return Landed(
            files=self.files + other.files,
            size=self.size + other.size,
            skipped=tuple(skipped[:NAMED]),
            moved=(*self.moved, *other.moved)[:NAMED],
            seen=other.seen,
            inert=(*self.inert, *other.inert)[:NAMED],
        )

    @property
    def refused_here(self) -> tuple[Skipped, ...]:
        """The files that this machine did not take: the host still has them."""
        return tuple(each for each in self.skipped if each.here)


NOTHING = Landed(files=0, size=0, skipped=(), moved=(), seen={})


def report(scope: Scope, landed: Landed, into: Path, *, lasts: bool = True) -> None:
    """Tell how much has landed, and warn of what has not.

    `lasts`: what stays behind stays where it is; else it goes with the machine or the pod.
    """
    count = f"{landed.files} file{'' if landed.files == 1 else 's'}"
    some = f"{count}, {size(landed.size)}, in {into}"
    scope.tell("fetched", some if landed.files > 0 else "nothing new")
    for old, way in landed.moved[:SHOWN]:
        scope.warn(f"made way: {os.fsdecode(old)!r} is now {os.fsdecode(way)!r}")
    for each in sorted(landed.skipped, key=lambda each: not each.stays)[:SHOWN]:
        scope.warn(f"{'left there' if each.stays and lasts else 'not brought'}: {each}")
    if len(landed.skipped) > SHOWN:
        scope.warn(f"not brought: {len(landed.skipped) - SHOWN} more")
