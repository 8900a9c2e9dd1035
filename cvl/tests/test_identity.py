"""Who is asked must be who it was: another's silence closes nothing, what is seen ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cleanup.leases import Leases
from cvl.core import identity
from cvl.core.errors import AuthError, CvlError, Denied, Elsewhere, Missing, StillOpen, Unreachable
from cvl.core.handles import checked
from cvl.core.interfaces import Machine
from cvl.core.scope import Scope
from cvl.core.spec import Cause, Resource, ended
from cvl.host.identity import confirm as same_machine
from cvl.host.identity import whole
from cvl.ledger import Ledger, Run, RunState
from cvl.operations import reap
from cvl.providers.aws import identity as aws_whose
from cvl.providers.aws.session import Account
from cvl.providers.lambda_cloud.account import account, confirm, identity_of
from cvl.providers.lambda_cloud.api import LambdaAPI
from cvl.providers.sagemaker.job import TrainingJob
from cvl.providers.ssh import SSHRunner
from cvl.rental.job import RentedJob
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.tests.fakes import FakeClock

RUN = "run-1124-050000-0123456789"
MACHINE = Resource(
    kind="instance", name=f"cvl-{RUN}", run_id=RUN, id="i-1", price_per_hour=Decimal(1)
)
JOB = Resource(kind="job", name=f"cvl-{RUN}", run_id=RUN, id="j-1")
FIRST, SECOND = "account=1", "account=2"


class Account2:
    """An `Owner` and `Identified`: one account, which lists what it has."""

    name = "shop"
    listing_lag = 0.0
    unique: frozenset[str] = frozenset()

    def __init__(self, me: str, *things: Resource, trouble: CvlError | None = None) -> None:
        self.me, self.things, self.trouble = me, list(things), trouble
        self.ended: list[str] = []

    def owned(self, kind: str = "") -> Iterable[Resource]:
        return [each for each in self.things if kind in {"", each.kind}]

    def destroy(self, resource: Resource) -> None:
        self.ended.append(resource.id)
        self.things = [each for each in self.things if each.id != resource.id]

    def now(self) -> float:
        return 0.0

    def identity(self) -> str:
        return self.me

    def confirm(self, identity: str) -> None:
        if self.trouble:
            raise self.trouble
        if identity != self.me:
            raise Elsewhere(f"it ran on {identity}; this is {self.me}")


class Unnamed:
    """An owner of a runner that knows nothing of identities."""

    name = "shop"
    listing_lag = 0.0

    def owned(self, kind: str = "") -> Iterable[Resource]:
        del kind
        return []

    def destroy(self, resource: Resource) -> None:
        del resource


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def begun(ledger: Ledger, on: str, *held: Resource) -> None:
    """Note a run on an account, and what it holds there."""
    handle = {"run": RUN} | ({identity.IDENTITY: on} if on else {})
    ledger.begin(Run(id=RUN, runner="shop", handle=handle))
    ledger.advance(RUN, RunState.LAUNCHING)
    for each in held:
        lease = ledger.intend(RUN, replace(each, id=""), provider="shop")
        assert lease
        assert ledger.confirm(lease, each.id)
    ledger.advance(RUN, RunState.RUNNING)


def released(ledger: Ledger, owner: Any, seconds: float = 60.0) -> None:
    scope = Scope(FakeClock(), seconds=seconds)
    Leases(ledger, RUN, owner, scope).release(scope)


def opened(ledger: Ledger) -> list[str]:
    return [lease.id for lease in ledger.leases(RUN, open_only=True)]


@pytest.mark.parametrize("thing", [MACHINE, JOB])
def test_another_account_s_silence_closes_no_line(ledger: Ledger, thing: Resource) -> None:
    begun(ledger, FIRST, thing)
    with pytest.raises(StillOpen, match="it ran on account=1; this is account=2"):
        released(ledger, Account2(SECOND))
    assert opened(ledger) == [thing.id]
    assert not ledger.finish(RUN, ended(Cause.LOST, run_id=RUN))


@pytest.mark.parametrize(
    ("on", "owner"),
    [(FIRST, Account2(FIRST)), ("", Account2(SECOND)), ("", Unnamed()), (FIRST, Unnamed())],
    ids=["the same", "noted by an older cvl", "neither", "a runner without identities"],
)
def test_what_the_same_account_lacks_is_gone(ledger: Ledger, on: str, owner: Any) -> None:
    begun(ledger, on, MACHINE)
    released(ledger, owner)
    assert opened(ledger) == []


def test_what_is_seen_is_ended_and_closed_whichever_key_shows_it(ledger: Ledger) -> None:
    """Keys are replaced: the machine proves that it is the account, for all of the run."""
    begun(ledger, FIRST, JOB, MACHINE)
    owner = Account2(SECOND, MACHINE)
    released(ledger, owner)
    assert "i-1" in owner.ended
    assert opened(ledger) == []


def test_what_has_no_price_proves_only_itself(ledger: Ledger) -> None:
    """A bucket is seen from many accounts, and says nothing of a job in one."""
    bucket = Resource(kind="input", name=JOB.name, run_id=RUN, id="s3://b/x")
    begun(ledger, FIRST, bucket, JOB)
    owner = Account2(SECOND, bucket)
    with pytest.raises(StillOpen, match="it ran on account=1"):
        released(ledger, owner)
    assert "s3://b/x" in owner.ended
    assert opened(ledger) == ["j-1"]


@pytest.mark.parametrize(("seen", "known"), [("j-1", True), ("j-2", False), ("", False)])
def test_an_id_that_is_nowhere_else_proves_who_is_asked(seen: str, known: bool) -> None:
    """A cluster whose address has changed, for somebody who may not read its uid."""
    owner = Account2(SECOND, *([replace(JOB, id=seen)] if seen else []))
    handle = {identity.IDENTITY: FIRST}
    assert identity.stranger(owner, handle, [JOB]), "an id that others may have proves nothing"
    owner.unique = frozenset({JOB.kind})
    assert (identity.stranger(owner, handle, [JOB]) is None) is known


@pytest.mark.parametrize("trouble", [Unreachable("offline"), Denied("sts: no"), AuthError("no")])
def test_where_nobody_says_whose_it_is_nothing_is_closed(ledger: Ledger, trouble: CvlError) -> None:
    begun(ledger, FIRST, MACHINE)
    with pytest.raises(StillOpen):
        released(ledger, Account2(FIRST, trouble=trouble), 10.0)
    assert opened(ledger) == ["i-1"]


def test_a_launch_in_doubt_is_not_settled_by_another_account(ledger: Ledger) -> None:
    """Credentials that were read again meanwhile may be another's."""
    begun(ledger, FIRST)

    def lost() -> str:
        raise Unreachable("no reply")

    leases = Leases(ledger, RUN, Account2(SECOND), Scope(FakeClock()))
    ledger.take(RUN, identity_owner(), "")
    with pytest.raises(StillOpen, match="account=2"):
        leases.acquire(replace(MACHINE, id=""), lost)
    assert len(ledger.leases(RUN, open_only=True)) == 1


def identity_owner() -> str:
    from cvl.core.process import me

    return me()


@pytest.mark.parametrize(("now", "closed"), [(FIRST, True), (SECOND, False)])
def test_reap_closes_an_ended_run_s_line_by_its_own_account_only(
    ledger: Ledger, now: str, *, closed: bool
) -> None:
    begun(ledger, FIRST, MACHINE)
    released(ledger, Account2(FIRST))
    ledger.finish(RUN, ended(Cause.STOPPED, run_id=RUN))
    (line,) = ledger.leases(RUN)
    ledger.confirm(line, "i-1")  # seen alive after all
    (orphan,) = ledger.orphans()
    owner = cast("Any", Account2(now))
    if closed:
        reap.finish(orphan, owner, ledger, Silent())
    else:
        with pytest.raises(StillOpen) as told:
            reap.finish(orphan, owner, ledger, Silent())
        assert isinstance(told.value.__cause__, Elsewhere)
    assert (opened(ledger) == []) == closed


def test_what_was_seen_elsewhere_closes_only_its_own_line(ledger: Ledger) -> None:
    """A bucket that two accounts see must not close the line of a job that one of them has."""
    bucket = Resource(kind="input", name=JOB.name, run_id=RUN, id="s3://b/x")
    begun(ledger, FIRST, bucket, JOB)
    reap.close(RUN, ledger, [bucket])
    assert opened(ledger) == ["j-1"]
    reap.close(RUN, ledger)
    assert opened(ledger) == []


def test_a_machine_that_was_seen_closes_all_of_its_run(ledger: Ledger) -> None:
    begun(ledger, FIRST, JOB, MACHINE)
    reap.close(RUN, ledger, [MACHINE])
    assert opened(ledger) == []


class Silent:
    """An `Observer` that says nothing."""

    def phase(self, name: str, text: str) -> None: ...
    def output(self, chunk: object) -> None: ...
    def warn(self, text: str) -> None: ...


WORDS = st.dictionaries(
    st.sampled_from(["account", "region", "server", "uid"]), st.text(max_size=20), max_size=4
)


@given(WORDS)
def test_an_identity_is_one_line_that_says_its_parts(given_parts: dict[str, str]) -> None:
    line = identity.written(**given_parts)
    assert "\n" not in line
    kept = {name: "".join(value.split()) for name, value in given_parts.items()}
    assert identity.parts(line) == {name: value for name, value in kept.items() if value}


# A machine of the user's own


@given(st.binary(max_size=40), st.binary(max_size=80))
def test_whatever_a_host_is_called_the_handle_can_be_used(host: bytes, base: bytes) -> None:
    name = host.decode(errors="surrogateescape").replace("\n", "").replace(" ", "")
    folder = "/" + base.decode(errors="surrogateescape").replace("\n", "")
    handle = {"run": RUN, **whole(f"- {name} {folder}")}
    assert checked("ssh", handle, SSHRunner.acting, SSHRunner.files) == handle


def test_another_machine_or_another_folder_is_told_and_the_same_is_not() -> None:
    was = whole("abc box /home/u/.cvl")
    same_machine(was, "abc box /home/u/.cvl", "gpu")
    same_machine({}, "abc box /home/u/.cvl", "gpu")
    with pytest.raises(Elsewhere, match="it ran on box; gpu is now other"):
        same_machine(was, "def other /home/u/.cvl", "gpu")
    with pytest.raises(Elsewhere, match="gpu is now copy"):  # of one disk, with one machine-id
        same_machine(was, "abc copy /home/u/.cvl", "gpu")
    with pytest.raises(Elsewhere, match="another folder"):
        same_machine(was, "abc box /home/v/.cvl", "gpu")
    assert "abc" not in was["ran_on"], "a machine-id is confidential (machine-id(5))"


# AWS


class Wire(Account):
    """An account whose AWS knows no job, and says whose credentials these are, or why not."""

    def __init__(self, number: str | CvlError, *, region: str = "eu-west-1", at: str = "") -> None:
        super().__init__(region, endpoint="http://127.0.0.1:1")
        self._says, self._at = number, at
        self.asked: list[str] = []

    def endpoint(self, service: str) -> str:
        del service
        return self._at

    def call(self, service: str, operation: str, /, **parameters: Any) -> Any:
        del parameters
        self.asked.append(operation)
        if service == "sts":
            if isinstance(self._says, CvlError):
                raise self._says
            return {"Account": self._says}
        raise Missing("Requested resource not found.")


HANDLE = {"run": RUN, "job": f"cvl-{RUN}", "output": "s3://bucket/x"}
ON_AWS = identity.written(account="111111111111", region="eu-west-1")


@pytest.mark.parametrize(
    "now",
    [
        Wire("222222222222"),
        Wire("111111111111", region="us-east-1"),
        Wire("111111111111", at="http://127.0.0.1:4566"),
    ],
    ids=["account", "region", "endpoint"],
)
def test_another_account_region_or_endpoint_knows_nothing_of_a_job(now: Wire) -> None:
    for ask in _ways(TrainingJob(now, {**HANDLE, identity.IDENTITY: ON_AWS})):
        with pytest.raises(Elsewhere, match="it ran on AWS account 111111111111 in eu-west-1; "):
            ask()


def _ways(job: TrainingJob) -> list[Callable[[], object]]:
    return [
        job.poll,
        lambda: list(job.chunks()),
        lambda: job.stop(1, Cause.STOPPED),
        lambda: job.fetch(Path("/nowhere"), Scope()),
    ]


@pytest.mark.parametrize("why", [Denied("not authorized"), Unreachable("timed out")])
def test_without_a_word_from_sts_a_job_is_not_lost(why: CvlError) -> None:
    job = TrainingJob(Wire(why), {**HANDLE, identity.IDENTITY: ON_AWS})
    with pytest.raises(Unreachable):
        job.poll()


def test_the_account_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvl.providers.sagemaker.job.LISTING_LAG", 0.0)
    wire = Wire("111111111111")
    job = TrainingJob(wire, {**HANDLE, identity.IDENTITY: ON_AWS})
    status = job.poll()
    assert status is not None
    assert status.cause is Cause.LOST
    assert wire.asked.count("get_caller_identity") == 1


def test_a_job_of_an_older_cvl_is_asked_for_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvl.providers.sagemaker.job.LISTING_LAG", 0.0)
    wire = Wire("222222222222")
    status = TrainingJob(wire, HANDLE).poll()
    assert status is not None
    assert status.cause is Cause.LOST
    assert "get_caller_identity" not in wire.asked


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://api.sagemaker.eu-west-1.amazonaws.com", ""),
        ("https://api-fips.sagemaker.us-gov-west-1.amazonaws.com", ""),
        ("https://api.sagemaker.cn-north-1.amazonaws.com.cn", ""),
        ("https://vpce-0a.api.sagemaker.eu-west-1.vpce.amazonaws.com", ""),
        ("http://127.0.0.1:4566", "http://127.0.0.1:4566"),
        ("https://amazonaws.com.example.org", "https://amazonaws.com.example.org"),
    ],
)
def test_aws_itself_is_told_from_what_stands_for_it(
    monkeypatch: pytest.MonkeyPatch, url: str, place: str
) -> None:
    class Made:
        class meta:  # noqa: N801 - botocore's name
            endpoint_url = url

    account = Account("eu-west-1")
    monkeypatch.setattr(account, "client", lambda _service: Made())
    assert account.endpoint("sagemaker") == place
    assert aws_whose.shown(identity.written(account="1", region="r", endpoint=place)).endswith(
        f"in r{' at ' + place if place else ''}"
    )


# Lambda


@pytest.fixture
def cloud() -> Iterator[LambdaCloud]:
    with LambdaCloud(Settings(request_interval=0, launch_interval=0)) as running:
        yield running


def api(cloud: LambdaCloud, key: str = "") -> LambdaAPI:
    return LambdaAPI(key or cloud.key, cloud.base, interval=0, launch_interval=0)


def test_a_key_is_known_again_without_a_request_and_never_shown(cloud: LambdaCloud) -> None:
    noted = identity_of(api(cloud), "")
    assert cloud.key not in noted
    assert noted != identity_of(api(cloud), ""), "each run has a salt of its own"
    confirm(api(cloud), noted)
    assert not cloud.log


def test_a_replaced_key_of_the_same_account_is_as_good(cloud: LambdaCloud) -> None:
    api(cloud).once("/ssh-keys", {"name": "a", "public_key": "ssh-ed25519 AAAA"})
    noted = identity_of(api(cloud), account(api(cloud)))
    cloud.api.key = "secret_another"
    confirm(api(cloud, "secret_another"), noted)
    assert not cloud.violations


@pytest.mark.parametrize("known", [True, False])
def test_a_key_of_another_account_concludes_nothing(cloud: LambdaCloud, *, known: bool) -> None:
    noted = identity_of(api(cloud), "lrn:cloud:account:0123" if known else "")
    cloud.api.key = "secret_another"
    with pytest.raises(Elsewhere) as caught:
        confirm(api(cloud, "secret_another"), noted)
    assert "secret_another" not in str(caught.value)
    assert ("account 0123" in str(caught.value)) == known


def test_a_key_that_is_none_is_said_to_be_none(cloud: LambdaCloud) -> None:
    noted = identity_of(api(cloud), "lrn:cloud:account:0123")
    with pytest.raises(AuthError, match="does not accept this API key"):
        confirm(api(cloud, "secret_revoked"), noted)


def test_a_key_that_may_not_read_the_log_concludes_nothing(cloud: LambdaCloud) -> None:
    noted = identity_of(api(cloud), "lrn:cloud:account:0123")
    cloud.api.key = "secret_another"
    cloud.api.active = False
    with pytest.raises(Elsewhere, match="may be of another account"):
        confirm(api(cloud, "secret_another"), noted)


class Far:
    """A far side that is never reached."""

    transport = None


class SilentJob:
    """A `RemoteJob` whose machine does not answer."""

    run_id = RUN

    def __init__(self, on: str) -> None:
        self.handle = {"run": RUN, "address": "192.0.2.1"} | ({identity.IDENTITY: on} if on else {})

    def poll(self) -> None:
        raise Unreachable("no answer")

    def stop(self, _grace: float, _cause: Cause) -> None:
        raise Unreachable("no answer")


class Lister(Account2):
    """A cloud that lists no machine."""

    user = "u"

    def look(self, resource: Resource) -> Machine:
        del resource
        return Machine(state="missing", words="not listed")


def _rented(on: str, now: str) -> RentedJob:
    return RentedJob(
        cast("Any", SilentJob(on)), cast("Any", Far()), cast("Any", Lister(now)), MACHINE
    )


def test_a_machine_that_another_account_does_not_list_is_not_lost() -> None:
    job = _rented(FIRST, SECOND)
    for ask in (job.poll, lambda: job.stop(1, Cause.STOPPED), job._check):
        with pytest.raises(Elsewhere):
            ask()


@pytest.mark.parametrize("on", [FIRST, ""])
def test_a_machine_that_its_own_account_lists_no_more_is_lost(on: str) -> None:
    job = _rented(on, FIRST)
    for _ in range(2):
        with pytest.raises(Unreachable):
            job.poll()
    status = job.poll()
    assert status is not None
    assert status.cause is Cause.LOST
