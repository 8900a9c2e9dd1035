"""Whom `cvl reap` asks, and where: whoever the ledger, the configuration or the user names.

What cvl was never used with is asked by nobody's leave only where there is no ledger to tell: on
another computer, or when it is lost. Elsewhere a login for it is worth a note.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from cvl.core.errors import AuthError, CvlError
from cvl.core.frozen import dataclass
from cvl.core.interfaces import Reapable
from cvl.core.paths import private, replace_file, state_dir
from cvl.core.spec import EMPTY
from cvl.ledger import Ledger, Run
from cvl.providers import BUILT_IN, load, reopen
from cvl.providers.runner import Runner

RECENT = 31 * 86400.0
"""Seconds after its start in which a run may have left something that its ledger has as over."""
EVERY = 3600.0
"""Seconds between two looks at all places that a provider has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One provider, as one login and one handle lead to it.

    `handle` is empty where the environment decides. `holds` are the runs that have something open
    there by our ledger. `named`: the user has said that it is to be asked. `every`: asked only
    because the provider has it, now and then.
    """

    runner: str
    handle: Mapping[str, str]
    holds: tuple[str, ...] = ()
    named: bool = False
    every: bool = False

    def owner(self) -> Reapable:
        """Return whom to ask. Raises `CvlError`, also where there is no login any more."""
        if self.handle:
            return cast("Reapable", reopen(self.runner, self.handle))
        owner = load(self.runner).owner()
        if owner is None:
            raise AuthError(f"there is no login for {self.runner} here")
        return owner

    @property
    def matters(self) -> bool:
        """Whether something of ours may go unseen where it is not asked."""
        return bool(self.holds) or self.named

    def __str__(self) -> str:
        """Return it for a person."""
        parts = [value for value in self.handle.values() if value]
        return f"{self.runner} ({', '.join(parts)})" if parts else self.runner


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetList:
    """What is known of the providers before anybody is asked. `notes` are for the user."""

    targets: tuple[Target, ...]
    notes: tuple[str, ...] = ()
    trouble: tuple[Exception, ...] = ()


def targets(
    ledger: Ledger, configured: Mapping[str, Mapping[str, str]], only: str = ""
) -> TargetList:
    """Return whom to ask; `configured`: runners, with the options that they have; `only` one.

    Raises `NotFound` for an `only` that is no runner.
    """
    trouble, runs, open_runs = list[Exception](), list[Run](), set[str]()
    try:
        runs = ledger.runs()
        open_runs = {lease.run_id for lease in ledger.leases(open_only=True)}
    except CvlError as error:
        trouble.append(error)
    if only:
        load(only)
    named = {*configured, only} - {""}
    all_targets, notes = list[Target](), list[str]()
    used = sorted({run.runner for run in runs})
    for name in [only] if only else dict.fromkeys([*BUILT_IN, *sorted(named), *used]):
        ours = [run for run in runs if run.runner == name]
        holds = tuple(run.id for run in ours if run.id in open_runs)
        try:
            runner = load(name)
        except CvlError as error:
            if name in named or holds:
                trouble.append(error)
            continue
        if not runner.reapable:
            continue
        meant = name in named or runner.has_key()
        if runs and not (meant or ours or any(map(os.environ.get, runner.variables))):
            if runner.login():
                how = f"`cvl reap --remote {name}` asks there too"
                notes.append(f"there is a login for {name}, which cvl has not used here: {how}")
            continue
        all_targets += _of(runner, name, ours, holds, configured.get(name, EMPTY), named=meant)
    return TargetList(targets=tuple(all_targets), notes=tuple(notes), trouble=tuple(trouble))


def _of(
    runner: type[Runner],
    name: str,
    runs: list[Run],
    holds: tuple[str, ...],
    own: Mapping[str, str],
    *,
    named: bool,
) -> Iterator[Target]:
    """Yield where one provider is asked: by its runs, by the configuration, and everywhere.

    What the configuration says of it stands in for the environment.
    """
    reach = runner.reach
    by_handle: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        began = 0.0 if run.started is None else run.started
        if reach and (run.id in holds or time.time() - began < RECENT):
            key = tuple(run.handle.get(each, "") for each in reach)
            by_handle.setdefault(key, []).extend([run.id] if run.id in holds else [])
    here = {each: own[each] for each in reach if own.get(each)}
    if here:
        by_handle.setdefault(tuple(here.get(each, "") for each in reach), [])
    for key, held in by_handle.items():
        if any(key):
            handle = dict(zip(reach, key, strict=True))
            yield Target(runner=name, handle=handle, holds=tuple(held), named=named)
    there = runner.login()
    elsewhere = {run_id for held in by_handle.values() for run_id in held}
    left = tuple(each for each in holds if each not in elsewhere)
    if there or left:
        yield Target(runner=name, handle={}, holds=left, named=named and there and not here)
    if there and runner.regional and _is_due(name):
        yield Target(runner=name, handle=here, every=True)


def _is_due(name: str) -> bool:
    """Return whether it is time to look everywhere at a provider again."""
    try:
        return not 0 <= time.time() - _note(name).stat().st_mtime < EVERY
    except OSError:
        return True


def looked_everywhere(name: str) -> None:
    """Note that a provider was asked in all its places just now."""
    with suppress(OSError):
        note = _note(name)
        private(note.parent)
        replace_file(note, b"")


def _note(name: str) -> Path:
    return state_dir() / "reap" / name
