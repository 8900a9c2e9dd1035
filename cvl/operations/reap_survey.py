"""What `cvl reap` sees: the ledger's word, and each provider's, each as soon as it comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice

from cvl.cleanup.until_gone import named
from cvl.core.errors import Elsewhere, explained
from cvl.core.interfaces import Observer, Reapable
from cvl.core.parallel import as_they_come, together
from cvl.core.paths import ledger_file
from cvl.core.spec import Resource
from cvl.ledger import Ledger, Run
from cvl.operations import reap_findings
from cvl.operations.reap_findings import Finding
from cvl.operations.reap_targets import Target, looked_everywhere, targets
from cvl.providers import BUILT_IN, load

MOST_UNCLEAR = 20
"""Entries that nobody can read, as many as are told of one by one."""
LOOK_LIMIT = 120.0
"""Seconds that the look at one provider may take."""
BRIEF_LIMIT = 30.0
"""The same where nothing of ours is known to be, and nobody has named it."""


class Survey:
    """One look around. `code` is 125 once something that matters could not be seen."""

    def __init__(
        self, observer: Observer, configured: Mapping[str, Mapping[str, str]], only: str = ""
    ) -> None:
        """`configured`: runners, with the options that they have; `only` one counts, "" for all.

        Raises `NotFound` for an `only` that is no runner.
        """
        self.ledger, self.observer, self.code = Ledger(ledger_file()), observer, 0
        asked = targets(self.ledger, configured, only)
        self._targets, self._only = asked.targets, only
        self._words = [f"note: {each}" for each in asked.notes]
        self._notes: dict[str, str] = {}
        self._owners: dict[str, list[Reapable]] = {}
        self._seen: set[tuple[str, str]] = set()
        for each in asked.trouble:
            self._blind(explained(each))

    def batches(self) -> Iterator[list[Finding]]:
        """Yield what should be over, the dearest first: the ledger's, then each provider's.

        What one of them cannot say keeps none of the others back.
        """
        yield reap_findings.dearest_first(self._by_ledger())
        calls = [partial(self._look, each) for each in self._targets]
        limits = [LOOK_LIMIT if each.matters else BRIEF_LIMIT for each in self._targets]
        for number, answer in as_they_come(calls, limits):
            if isinstance(answer, Exception):
                self._unseen(self._targets[number], answer)
            else:
                yield reap_findings.dearest_first(self._new(answer))

    def owners(self, runner: str) -> list[Reapable]:
        """Return who has answered for a runner; for one that is none, all who have."""
        if runner in BUILT_IN:
            return list(self._owners.get(runner, ()))
        return [owner for every in self._owners.values() for owner in every]

    def tell(self) -> None:
        """Say what could not be seen, and what is only worth a note."""
        for each in dict.fromkeys(self._words):
            self.observer.warn(each)
        words = "\n".join(self._words)
        for target, why in self._notes.items():
            if why not in words:
                self.observer.warn(f"note: {target} could not be asked: {why}")

    def _by_ledger(self) -> list[Finding]:
        """Return what the ledger knows to be over; where it cannot be read, the tags have to do."""
        findings = list[Finding]()
        calls = (
            partial(reap_findings.abandoned, self.ledger),
            partial(reap_findings.left_over, self.ledger, self._stray),
        )
        for each in together(calls, LOOK_LIMIT):
            if isinstance(each, Exception):
                self._blind(f"{explained(each)}; going by tags alone")
                continue
            runs = {finding.run_id for finding in findings}
            findings += [finding for finding in each if finding.run_id not in runs]
        ours = [each for each in findings if self._only in {"", each.provider}]
        for finding in ours:
            leases = finding.orphan.leases if finding.orphan else ()
            self._seen |= {(lease.kind, lease.name) for lease in leases}
        return ours

    def _stray(self, run: Run, error: Elsewhere) -> None:
        """Hear of a run that is not where it was asked for: it holds something all the same."""
        if self._only in {"", run.runner}:
            self._blind(f"{run.id}: {explained(error)}")

    def _new(self, findings: Iterable[Finding]) -> list[Finding]:
        """Return what no other look has found: several may lead to the same account."""
        new = []
        for each in findings:
            keys = {(each.kind, each.name), (each.kind, each.id)} - {(each.kind, "")}
            if not keys & self._seen:
                new.append(each)
            self._seen |= keys
        return new

    def _look(self, target: Target) -> list[Finding]:
        if target.every:
            return self._look_everywhere(target)
        owner = target.owner()
        findings, sure = overdue(str(target), owner, self.ledger, self.observer)
        self._owners.setdefault(target.runner, []).append(owner)
        if not sure:
            self.code = 125
        return findings

    def _look_everywhere(self, target: Target) -> list[Finding]:
        """Look in each place that a provider has; that some are closed to us is usual."""
        runner = load(target.runner)
        calls = [
            partial(overdue, target.runner, owner, self.ledger, self.observer)
            for owner in runner.everywhere(target.handle)
        ]
        answers = together(calls, BRIEF_LIMIT)
        good = [each for each in answers if not isinstance(each, Exception)]
        if good:
            looked_everywhere(target.runner)
        return [finding for findings, _ in good for finding in findings]

    def _unseen(self, target: Target, error: Exception) -> None:
        if target.matters:
            runs = f"; it may hold {', '.join(target.holds)}" if target.holds else ""
            self._blind(f"{target} could not be asked: {explained(error)}{runs}")
        elif not target.every:
            self._notes[str(target)] = explained(error)

    def _blind(self, words: str) -> None:
        self.code = 125
        self._words.append(words)


def overdue(
    name: str, owner: Reapable, ledger: Ledger, observer: Observer
) -> tuple[list[Finding], bool]:
    """Return what should be over there, and whether that is all. Raises what `owned` raises."""
    resources = list(owner.owned())
    findings = reap_findings.overdue(owner, ledger, resources)
    unclear = [each for each in resources if each.unclear]
    sure = owner.now() is not None
    if not sure:
        observer.warn(f"{name} does not say what time it is: no deadline was judged")
    tell_unclear(name, unclear, observer)
    return findings, sure and not unclear


def tell_unclear(name: str, unclear: Iterable[Resource], observer: Observer) -> None:
    """Say what a provider lists that nobody can read: like entries once, and not without end."""
    alike = Counter(map(named, unclear))
    for what, times in islice(alike.items(), MOST_UNCLEAR):
        often = f" ({times} times)" if times > 1 else ""
        observer.warn(f"{name} lists {what}{often}: it may be ours; look at it there")
    if len(alike) > MOST_UNCLEAR:
        observer.warn(f"{name} lists {len(alike) - MOST_UNCLEAR} more that cannot be read")
