"""What came of bringing a run's results, for a person: the same of every provider."""

from __future__ import annotations

import os
from pathlib import Path

from cvl.core.scope import Scope
from cvl.core.units import size
from cvl.host.download.landing import Landed

SHOWN = 5
"""Files that are named, of those that did not come and of those that made way."""


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
