"""What a run does beside its job: who hears of it, where its results land, how long things take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path

from cvl.cleanup.release import RELEASE_LIMIT
from cvl.core.frozen import dataclass
from cvl.core.interfaces import Observer, Provider
from cvl.core.scope import Clock, SystemClock
from cvl.core.spec import FETCH_LIMIT, GRACE, Plan

GIVEN = re.compile(r"[0-9]{1,7}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller of a run decides; limits are seconds.

    `agree(plan)` is called before anything happens; it raises to refuse. `results` is where those
    of a run that begins land; None: in a folder of its own below `RESULTS`. `guarded`: a guardian
    goes on with what costs money should this process die, if the provider wants one. `hold`: where
    results can only come once a person has changed something (a full disk), what has the only copy
    of them is kept for as long as a fetch may take.
    """

    observer: Observer
    results: Path | None = None
    agree: Callable[[Plan], None] = lambda _plan: None
    fetch: bool = True
    keep: bool = False
    keep_on_fetch_failure: bool = False
    hold: bool = True
    grace: float = GRACE
    fetch_limit: float = FETCH_LIMIT
    release_limit: float = RELEASE_LIMIT
    guarded: bool = True
    clock: Clock = field(default_factory=SystemClock)


def stop_limit(provider: Provider, handle: Mapping[str, str], grace: float) -> float:
    """Return the seconds in which a job has to be seen ended once it was told to stop.

    A handle may name the grace that its job was started with, where that counts whatever is said
    later.
    """
    own = handle.get("grace", "")
    return max(grace, int(own) if GIVEN.fullmatch(own) else 0.0) + provider.stop_limit
