"""Names and tags by which anybody finds what is ours, and a provider's own clock."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cvl.core import tags
from cvl.core.replies import LATEST
from cvl.core.server_clock import ServerClock
from cvl.core.spec import Resource, new_run_id
from cvl.core.tags import Marks
from cvl.tests.fakes import FakeClock

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.text(), st.text("0123456789abcdef", max_size=32), st.integers(0, int(LATEST)))
def test_what_is_written_is_read_again(example: str, owner: str, due: int) -> None:
    run_id = new_run_id(example)
    marks = Marks(run_id=run_id, owner=owner, deadline=float(due))
    assert Marks.read(marks.tags) == marks
    assert tags.unlisted(tags.listed(marks.tags)) == marks.tags
    named = Resource(kind="machine", name=tags.name_of(run_id))
    assert tags.run_of(named.name) == tags.surely_run_of(named.name) == run_id
    assert (marks.on(named).run_id, marks.on(named).deadline) == (run_id, due)


@given(ANYTHING, ANYTHING, ANYTHING)
def test_whatever_stands_in_a_tag_is_read_within_bounds(run: Any, owner: Any, due: Any) -> None:
    read = Marks.read({tags.RUN: run, tags.OWNER: owner, tags.DEADLINE: due})
    assert len(read.run_id) <= 63
    assert len(read.owner) <= tags.LONGEST_OWNER
    assert read.deadline is None or 0 <= read.deadline <= LATEST
    assert tags.unlisted([run, {"Key": run, "Value": owner}]).keys() <= {
        run if isinstance(run, str) else ""
    }
    assert tags.run_of(run) == "" or str(run).startswith(tags.PREFIX)


def test_a_name_that_somebody_may_have_chosen_proves_nothing() -> None:
    assert tags.run_of("cvl-website") == "website"
    assert tags.surely_run_of("cvl-website") == ""
    assert tags.run_of("website") == tags.run_of("cvl-Website") == tags.run_of("cvl-") == ""


def test_time_is_the_servers_whatever_our_clock_says() -> None:
    clock = FakeClock()
    there = ServerClock(clock)
    assert there.told() is None
    assert there.now() == clock.time()
    there.heard({"Date": "Tue, 15 Nov 1994 08:12:31 GMT"})
    assert there.now() == there.told() == 784887151
    clock.now += 10
    there.heard({"date": "no date"})
    assert there.now() == 784887161
