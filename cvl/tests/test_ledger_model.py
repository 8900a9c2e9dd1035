"""The ledger against a model of it: any order of calls, through two ledgers on one file."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from cvl.core.process import Life
from cvl.core.spec import ExitStatus, Resource
from cvl.ledger import Lease, LeaseState, Ledger, Run, RunState

ORDER = list(RunState)
OWNERS = st.sampled_from(["", "alive", "dead", "elsewhere"])
WHO = st.integers(0, 1)


@dataclass
class Line:
    """A resource as the model knows it."""

    name: str
    id: str = ""
    state: str = "intended"


@dataclass
class Story:
    """A run as the model knows it."""

    owner: str
    state: RunState = RunState.PLANNED
    code: int | None = None
    lines: list[Line] = field(default_factory=list)

    @property
    def open(self) -> list[Line]:
        return [line for line in self.lines if line.state != "released"]


class LedgerAgainstModel(RuleBasedStateMachine):
    runs = Bundle("runs")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        shared = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
        path = self.folder / "ledger.db"
        self.books = (Ledger(path), Ledger(path))
        self.model: dict[str, Story] = {}
        self.ids: set[tuple[str, str]] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(target=runs, who=WHO, owner=OWNERS)
    def begin(self, who: int, owner: str) -> str:
        name = f"r{len(self.model)}"
        self.books[who].begin(Run(id=name, owner=owner))
        self.model[name] = Story(owner)
        return name

    @rule(who=WHO, run=runs, to=st.sampled_from(ORDER[1:-1]), by=st.none() | OWNERS)
    def advance(self, who: int, run: str, to: RunState, by: str | None) -> None:
        story = self.model[run]
        forward = ORDER.index(story.state) < ORDER.index(to)
        planned = story.state is RunState.PLANNED
        wins = forward and (not planned or to is RunState.LAUNCHING) and by in {None, story.owner}
        assert self.books[who].advance(run, to, by=by) == wins
        if wins:
            story.state = to

    @rule(who=WHO, run=runs, code=st.integers(0, 255), by=st.none() | OWNERS)
    def finish(self, who: int, run: str, code: int, by: str | None) -> None:
        story = self.model[run]
        over = story.state is RunState.ENDED or story.open
        wins = not over and by in {None, story.owner}
        assert self.books[who].finish(run, ExitStatus(code), by=by) == wins
        if wins:
            story.state, story.code, story.owner = RunState.ENDED, code, ""

    @rule(who=WHO, run=runs, me=OWNERS, from_owner=OWNERS)
    def take(self, who: int, run: str, me: str, from_owner: str) -> None:
        story = self.model[run]
        wins = story.state is not RunState.ENDED and story.owner == from_owner
        assert self.books[who].take(run, me, from_owner) == wins
        if wins:
            story.owner = me

    @rule(target=leases, who=WHO, run=runs, number=st.integers(0, 2))
    def intend(self, who: int, run: str, number: int) -> object:
        story, name = self.model[run], f"{run}-{number}"
        lease = self.books[who].intend(run, Resource(kind="k", name=name), provider="p")
        may = story.state in ORDER[1:4]
        assert (lease is not None) == (may and all(line.name != name for line in story.lines))
        if lease is None:
            return multiple()
        story.lines.append(Line(name))
        return lease

    @rule(target=leases, who=WHO, run=runs)
    def look(self, who: int, run: str) -> object:
        """What somebody reads now and acts upon later."""
        return multiple(*self.books[who].leases(run))

    @rule(who=WHO, lease=leases, number=st.integers(1, 2))
    def confirm(self, who: int, lease: Lease, number: int) -> None:
        new_id = f"i-{number}"
        line = self.line_of(lease)
        usable = line.state in {"intended", "live"} and line.id in {"", new_id}
        assert self.books[who].confirm(lease, new_id) == usable
        self.ids.add((line.name, new_id))
        if line.id not in {"", new_id}:
            line = self.twin_of(lease, new_id)
        line.id = new_id
        line.state = line.state if line.state == "releasing" else "live"

    @rule(who=WHO, lease=leases, gone=st.booleans())
    def release(self, who: int, lease: Lease, gone: bool) -> None:
        line, book = self.line_of(lease), self.books[who]
        order = ["intended", "live", "releasing", "released"]
        to = "released" if gone else "releasing"
        wins = line.id == lease.id and order.index(line.state) < order.index(to)
        assert (book.released(lease) if gone else book.releasing(lease)) == wins
        if wins:
            line.state = to

    @invariant()
    def both_say_what_the_model_says(self) -> None:
        for book in self.books:
            known = {run.id: (run.state, run.owner, run.exit_code) for run in book.runs()}
            assert list(known) == list(reversed(self.model))
            assert known == {
                name: (story.state, story.owner, story.code) for name, story in self.model.items()
            }
            found = sorted((line.name, line.id, line.state.value) for line in book.leases())
            lines = [line for story in self.model.values() for line in story.lines]
            assert found == sorted((line.name, line.id, line.state) for line in lines)

    @invariant()
    def no_id_is_ever_forgotten(self) -> None:
        assert self.ids <= {(line.name, line.id) for line in self.books[0].leases()}

    @invariant()
    def orphans_are_what_is_left_to_the_dead(self) -> None:
        left = {
            name
            for name, story in self.model.items()
            if (story.owner == "dead" if story.state is not RunState.ENDED else story.open)
        }
        orphans = self.books[1].orphans(Life)
        assert {orphan.run.id for orphan in orphans} == left
        for orphan in orphans:
            assert len(orphan.leases) == len(self.model[orphan.run.id].open)
            assert LeaseState.RELEASED not in {lease.state for lease in orphan.leases}

    def line_of(self, lease: Lease) -> Line:
        """The model has the lines of a name in the order of their keys, as the ledger has."""
        keys = [each.key for each in self.books[0].leases(lease.run_id)]
        return self.model[lease.run_id].lines[keys.index(lease.key)]

    def twin_of(self, lease: Lease, new_id: str) -> Line:
        lines = self.model[lease.run_id].lines
        for line in lines:
            if (line.name, line.id) == (lease.name, new_id):
                return line
        lines.append(Line(lease.name))
        return lines[-1]


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
TestLedgerAgainstModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
