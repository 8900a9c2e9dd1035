"""The fake Lambda Cloud: it has to be right, or what is tested against it proves nothing."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead, RemoteDisconnected

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cvl.testing.lambda_cloud import (
    FAULTS,
    Drop,
    Entry,
    Fault,
    LambdaCloud,
    Moment,
    Settings,
    Status,
    What,
)
from cvl.testing.lambda_cloud.faults import Faults
from cvl.testing.lambda_cloud.hosts import NoHosts
from cvl.testing.lambda_cloud.limits import Pace
from cvl.testing.lambda_cloud.meter import cost, minutes
from cvl.testing.lambda_cloud.operations import perform
from cvl.testing.lambda_cloud.replies import ApiError
from cvl.testing.lambda_cloud.schema import find
from cvl.testing.lambda_cloud.state import Cloud

document, absent = find()
needs_document = pytest.mark.skipif(document is None, reason=absent)

FREE = Settings(request_interval=0, launch_interval=0, boot_seconds=60, terminate_seconds=10)
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICN+lJwsONkwrdsSnQsu1ydUkIuIg5oOC+Eslvmtt60T"
LAUNCH: dict[str, object] = {
    "region_name": "us-west-1",
    "instance_type_name": "gpu_1x_a10",
    "ssh_key_names": ["k"],
    "name": "ours",
    "hostname": "cvl-1",
    "tags": [{"key": "cvl-run", "value": "r-1"}],
    "user_data": "#cloud-config\n{}\n",
}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now


class Client:
    """Speaks to the cloud as a stranger would: a connection per request."""

    def __init__(self, base: str, key: str) -> None:
        self._base = base
        self._timeout = 30.0
        self.authorization = f"Bearer {key}"

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Wait for no reply that will not come."""
        patience, self._timeout = self._timeout, 0.3
        yield
        self._timeout = patience

    def call(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        """Return status and body. Raises what the wire makes it."""
        url = path if path.startswith("http") else self._base + path
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": self.authorization, "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else {}

    def data(self, method: str, path: str, body: object = None) -> object:
        status, reply = self.call(method, path, body)
        assert status == 200, reply
        return reply["data"]

    def code(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        status, reply = self.call(method, path, body)
        error = reply.get("error")
        return status, str(error["code"]) if isinstance(error, dict) else ""

    def add_key(self, name: str = "k") -> str:
        made = self.data("POST", "/ssh-keys", {"name": name, "public_key": PUBLIC})
        assert isinstance(made, dict)
        return str(made["id"])

    def launch(self, **changes: object) -> str:
        made = self.data("POST", "/instance-operations/launch", {**LAUNCH, **changes})
        assert isinstance(made, dict)
        return str(made["instance_ids"][0])

    def get(self, id_: str) -> dict[str, object]:
        found = self.data("GET", f"/instances/{id_}")
        assert isinstance(found, dict)
        return found

    def list(self) -> list[dict[str, object]]:
        found = self.data("GET", "/instances")
        assert isinstance(found, list)
        return found

    def terminate(self, id_: str) -> tuple[int, str]:
        return self.code("POST", "/instance-operations/terminate", {"instance_ids": [id_]})


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cloud(clock: Clock) -> Iterator[LambdaCloud]:
    with LambdaCloud(FREE, clock) as cloud:
        yield cloud


@pytest.fixture
def client(cloud: LambdaCloud) -> Client:
    client = Client(cloud.base, cloud.key)
    client.add_key()
    return client


def test_a_life_and_its_bill(cloud: LambdaCloud, client: Client, clock: Clock) -> None:
    id_ = client.launch()
    shown = client.get(id_)
    assert (shown["status"], shown.get("ip"), shown["name"]) == ("booting", None, "ours")
    assert shown["tags"] == LAUNCH["tags"]
    assert "user_data" not in shown
    assert cloud.bill().cost == 0
    clock.now += 60
    shown = client.get(id_)
    assert shown["status"] == "active"
    assert str(shown["ip"]).startswith("127.77.")
    clock.now += 61.5
    assert client.terminate(id_) == (200, "")
    assert client.get(id_)["status"] == "terminating"
    clock.now += 10
    assert client.get(id_)["status"] == "terminated"
    line = cloud.bill().of("ours")
    assert (line.seconds, line.minutes, line.held) == (61.5, 2, 121.5)
    assert line.cost == Decimal("0.025"), "2 minutes of 75 cents an hour"
    assert not cloud.bill().running
    clock.now += cloud.settings.linger_seconds
    assert client.list() == []
    assert client.terminate(id_) == (404, "global/object-does-not-exist")


def test_the_meter_runs_however_late_anybody_looks(
    cloud: LambdaCloud, client: Client, clock: Clock
) -> None:
    client.launch()
    clock.now += 3600
    assert cloud.bill().seconds == 3540
    assert [each.order.name for each in cloud.alive()] == ["ours"]


def test_terminated_while_booting_costs_nothing(
    cloud: LambdaCloud, client: Client, clock: Clock
) -> None:
    id_ = client.launch()
    clock.now += 30
    client.terminate(id_)
    clock.now += 100
    assert cloud.bill().cost == cloud.bill().seconds == 0


def test_an_os_shutdown_leaves_the_meter_running(
    cloud: LambdaCloud, client: Client, clock: Clock
) -> None:
    id_ = client.launch()
    clock.now += 60
    assert client.get(id_)["status"] == "active"
    cloud.state.instances[id_].host.power_cut()
    clock.now += 120
    assert client.get(id_)["status"] == "unhealthy"
    assert cloud.bill().of(id_).seconds == 120
    assert cloud.bill().running
    assert client.code("POST", "/instance-operations/restart", {"instance_ids": [id_]})[0] == 200
    clock.now += 60
    assert client.get(id_)["status"] == "active"
    assert cloud.bill().of(id_).seconds == 180


@given(st.integers(min_value=0, max_value=10**10), st.integers(min_value=1, max_value=10**5))
def test_minutes_begun_are_billed(milliseconds: int, cents: int) -> None:
    seconds = milliseconds / 1000
    billed = minutes(seconds)
    assert billed * 60 >= seconds > (billed - 1) * 60 or seconds == billed == 0
    assert abs(cost(cents, billed) * 6000 - cents * billed) < Decimal("1e-12")


@needs_document
def test_every_reply_is_as_documented(cloud: LambdaCloud, client: Client, clock: Clock) -> None:
    """Every operation once, well and badly, in every state; the document is the judge."""
    for path in ("/instance-types", "/regions", "/images", "/ssh-keys", "/file-systems"):
        client.data("GET", path)
    made = client.data("POST", "/ssh-keys", {"name": "generated"})
    assert isinstance(made, dict)
    assert "PRIVATE KEY" in made["private_key"]
    fs = {"name": "shared", "region": "us-west-1"}
    made = client.data("POST", "/filesystems", fs)
    assert isinstance(made, dict)
    assert client.code("POST", "/filesystems", fs) == (400, "global/duplicate")
    id_ = client.launch(file_system_names=["shared"], image={"family": "lambda-stack-24-04"})
    for seconds in (0, 60, 0):
        clock.now += seconds
        client.get(id_)
        client.list()
    assert client.code("DELETE", f"/filesystems/{made['id']}")[1] == "filesystems/filesystem-in-use"
    client.data("POST", f"/instances/{id_}", {"name": "renamed"})
    client.data("POST", "/instance-operations/restart", {"instance_ids": [id_]})
    restart = {"instance_ids": [id_]}
    assert client.code("POST", "/instance-operations/restart", restart)[0] == 409
    for seconds in (0, 5, 10):
        clock.now += seconds
        client.terminate(id_)
        client.list()
    client.data("DELETE", f"/filesystems/{made['id']}")
    client.code("DELETE", f"/filesystems/{made['id']}")
    client.code("GET", "/instances/none")
    client.terminate("none")
    cloud.api.active = False
    assert client.code("GET", "/instances") == (403, "global/account-inactive")
    cloud.api.active = True
    client.authorization = "Bearer wrong"
    assert client.code("GET", "/instances") == (401, "global/invalid-api-key")
    assert cloud.violations == []


@needs_document
@pytest.mark.parametrize(
    "body",
    [
        {"instance_type_name": "gpu_1x_a10", "ssh_key_names": ["k"]},
        {**LAUNCH, "ssh_key_names": "k"},
        {**LAUNCH, "hostname": "Upper_Case"},
        {**LAUNCH, "name": "n" * 65},
        {**LAUNCH, "tags": [{"key": "UPPER", "value": ""}]},
        {**LAUNCH, "tags": [{"key": "key", "value": "v" * 129}]},
        {**LAUNCH, "quantity": 1},
    ],
)
def test_what_the_document_forbids_is_refused_and_told(
    cloud: LambdaCloud, client: Client, body: dict[str, object]
) -> None:
    refused = client.code("POST", "/instance-operations/launch", body)
    assert refused == (400, "global/invalid-parameters")
    assert len(cloud.violations) >= 1
    assert cloud.bill().lines == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ssh_key_names": ["none"]}, (404, "global/object-does-not-exist")),
        ({"ssh_key_names": ["k", "k"]}, (400, "global/invalid-parameters")),
        ({"instance_type_name": "gpu_9x_b9"}, (404, "global/object-does-not-exist")),
        ({"region_name": "mars-1"}, (400, "global/invalid-parameters")),
        ({"image": {"id": "none"}}, (404, "global/object-does-not-exist")),
        ({"user_data": "x" * 1_000_001}, (400, "global/invalid-parameters")),
        ({"region_name": "europe-central-1"}, (400, FAULTS["launch-no-capacity"].code)),
    ],
)
def test_a_launch_that_cannot_be(
    cloud: LambdaCloud, client: Client, changes: dict[str, object], expected: tuple[int, str]
) -> None:
    body = {**LAUNCH, **changes}
    assert client.code("POST", "/instance-operations/launch", body) == expected
    assert cloud.bill().lines == ()
    assert cloud.violations == []


def test_capacity_and_quota_are_used_up(clock: Clock) -> None:
    capacity = {("gpu_1x_a10", "us-west-1"): 1, ("gpu_1x_a10", "us-east-1"): 9}
    with LambdaCloud(replace(FREE, capacity=capacity, quota=2), clock) as cloud:
        client = Client(cloud.base, cloud.key)
        client.add_key()
        id_ = client.launch()
        body = {**LAUNCH, "region_name": "us-west-1"}
        full = client.code("POST", "/instance-operations/launch", body)
        assert full == (400, FAULTS["launch-no-capacity"].code)
        types = client.data("GET", "/instance-types")
        assert isinstance(types, dict)
        regions = types["gpu_1x_a10"]["regions_with_capacity_available"]
        assert [region["name"] for region in regions] == ["us-east-1"]
        client.launch(region_name="us-east-1")
        body = {**LAUNCH, "region_name": "us-east-1"}
        refused = client.code("POST", "/instance-operations/launch", body)
        assert refused == (400, "global/quota-exceeded")
        client.terminate(id_)
        clock.now += 10
        client.launch()


def test_both_ways_to_show_the_key(cloud: LambdaCloud, client: Client) -> None:
    token = base64.b64encode(f"{cloud.key}:".encode()).decode()
    client.authorization = f"Basic {token}"
    assert client.list() == []
    client.authorization = "Basic !"
    assert client.code("GET", "/instances")[0] == 401
    client.authorization = ""
    assert client.code("GET", "/instances")[0] == 401
    assert client.code("GET", "/nothing")[0] == 401


def test_the_log_holds_no_secret(cloud: LambdaCloud, client: Client) -> None:
    client.launch(user_data="#cloud-config\nruncmd: [THESECRET]\n")
    text = repr(cloud.log)
    assert "THESECRET" not in text
    assert cloud.key not in text
    last = cloud.log[-1]
    assert (last.number, last.operation, last.status) == (2, "launchInstance", 200)


def test_rate_limits(clock: Clock) -> None:
    paced = replace(FREE, request_interval=1.0, launch_interval=12.0)
    with LambdaCloud(paced, clock) as cloud:
        client = Client(cloud.base, cloud.key)
        client.add_key()
        assert client.code("GET", "/instances")[0] == 429
        clock.now += 1
        client.launch()
        clock.now += 11
        assert client.code("POST", "/instance-operations/launch", LAUNCH)[0] == 429
        clock.now += 1
        client.launch()
        assert len(cloud.bill().lines) == 2


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=40))
def test_no_two_pass_within_an_interval(gaps: list[float]) -> None:
    clock = Clock()
    pace = Pace(1.0, clock)
    passed = []
    for gap in gaps:
        clock.now += gap
        if pace.admits():
            passed.append(clock.now)
    assert all(later - earlier >= 0.95 for earlier, later in itertools.pairwise(passed))


def test_the_date_is_the_clouds_own(clock: Clock) -> None:
    with LambdaCloud(replace(FREE, date_offset=600), clock) as cloud:
        headers = {"Authorization": f"Bearer {cloud.key}"}
        request = urllib.request.Request(f"{cloud.base}/regions", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as reply:
            date = parsedate_to_datetime(reply.headers["Date"])
        assert date.timestamp() == pytest.approx(clock.time() + 600, abs=1)


WIRE = {
    What.RESET: ConnectionError,
    What.HANG: TimeoutError,
    What.GARBAGE: ValueError,
    What.TRUNCATED: IncompleteRead,
}


def effects(cloud: LambdaCloud) -> tuple[int, int, int]:
    """Return the numbers of instances ever launched, of those ended, and of keys."""
    lines = cloud.bill().lines
    return len(lines), sum(line.ended is not None for line in lines), len(cloud.keys())


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].what in WIRE])
def test_faults_on_the_wire(cloud: LambdaCloud, client: Client, name: str) -> None:
    """Before the effect nothing has happened, after it everything; the client cannot tell."""
    fault = FAULTS[name]
    work = prepared(cloud, client, fault.on)
    before = effects(cloud)
    cloud.inject(fault)
    with client.impatient(), pytest.raises((WIRE[fault.what], urllib.error.URLError)):
        work()
    changed = effects(cloud) != before
    assert changed == (fault.after and fault.on != "listInstances")
    assert cloud.log[-1].fault == fault.what
    work()


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].what is What.HTTP])
def test_faults_that_answer_with_an_error(cloud: LambdaCloud, client: Client, name: str) -> None:
    fault = FAULTS[name]
    work = prepared(cloud, client, fault.on)
    before = effects(cloud)
    cloud.inject(fault)
    with pytest.raises(AssertionError):
        work()
    assert (cloud.log[-1].status, cloud.log[-1].code) == (fault.status, fault.code)
    assert (effects(cloud) != before) == fault.after
    cloud.clear_faults()
    work()


def prepared(cloud: LambdaCloud, client: Client, operation: str) -> Callable[[], object]:
    """Return what performs `operation` well, again and again."""
    ids = [client.launch() for _ in range(2)]
    keys = [client.add_key(f"key{number}") for number in range(2)]
    names = iter(("new1", "new2"))

    def terminate() -> None:
        status, code = client.terminate(ids.pop())
        assert status == 200, code

    todo: dict[str, Callable[[], object]] = {
        "launchInstance": client.launch,
        "terminateInstance": terminate,
        "addSSHKey": lambda: client.add_key(next(names)),
        "deleteSSHKey": lambda: client.data("DELETE", f"/ssh-keys/{keys.pop()}"),
        "listInstances": client.list,
        "getInstance": lambda: client.get(ids[0]),
        "*": lambda: client.data("GET", "/regions"),
    }
    return todo[operation]


def test_a_late_launch_happens_after_the_client_gave_up(
    cloud: LambdaCloud, client: Client, clock: Clock
) -> None:
    cloud.inject(FAULTS["launch-late"])
    with client.impatient(), pytest.raises(TimeoutError):
        client.launch()
    assert client.list() == []
    clock.now += 3
    assert len(client.list()) == 1


def test_a_late_launch_fails_without_its_key(
    cloud: LambdaCloud, client: Client, clock: Clock
) -> None:
    cloud.inject(FAULTS["launch-late"])
    with client.impatient(), pytest.raises(TimeoutError):
        client.launch()
    client.data("DELETE", f"/ssh-keys/{next(iter(cloud.state.keys))}")
    clock.now += 3
    assert client.list() == []
    assert cloud.bill().lines == ()


def test_a_fresh_launch_is_listed_late(cloud: LambdaCloud, client: Client) -> None:
    cloud.inject(FAULTS["launch-hidden"])
    id_ = client.launch()
    assert client.list() == []
    assert client.code("GET", f"/instances/{id_}")[0] == 404
    assert client.list() == []
    assert [each["id"] for each in client.list()] == [id_]


def test_boots_for_ever(cloud: LambdaCloud, client: Client, clock: Clock) -> None:
    cloud.inject(FAULTS["boot-for-ever"])
    id_ = client.launch()
    clock.now += 10**6
    assert client.get(id_)["status"] == "booting"
    assert cloud.bill().running


def test_unhealthy_is_billed(cloud: LambdaCloud, client: Client, clock: Clock) -> None:
    cloud.inject(FAULTS["boot-unhealthy"])
    id_ = client.launch()
    clock.now += 90
    assert client.get(id_)["status"] == "unhealthy"
    assert cloud.bill().seconds == 30


def test_preempted_is_over(cloud: LambdaCloud, client: Client, clock: Clock) -> None:
    cloud.inject(FAULTS["preempted"])
    id_ = client.launch()
    clock.now += 100
    assert client.get(id_)["status"] == "preempted"
    assert cloud.bill().of(id_).seconds == 1
    assert client.terminate(id_) == (200, "")


def test_addresses_come_late_and_change(cloud: LambdaCloud, client: Client, clock: Clock) -> None:
    cloud.inject(FAULTS["boot-no-ip"])
    cloud.inject(FAULTS["boot-new-ip"])
    id_ = client.launch()
    clock.now += 60
    assert (client.get(id_)["status"], client.get(id_).get("ip")) == ("active", None)
    first = cloud.state.instances[id_].host.address
    clock.now += 1
    assert client.get(id_)["ip"] not in (None, first)


def test_terminate_is_refused_while_booting(
    cloud: LambdaCloud, client: Client, clock: Clock
) -> None:
    cloud.inject(FAULTS["terminate-refused"])
    id_ = client.launch()
    assert client.terminate(id_) == (400, "global/invalid-parameters")
    assert client.get(id_)["status"] == "booting"
    clock.now += 60
    assert client.terminate(id_) == (200, "")


def test_a_cloud_that_never_terminates_while_booting_says_so(clock: Clock) -> None:
    with LambdaCloud(replace(FREE, terminate_while_booting=False), clock) as cloud:
        client = Client(cloud.base, cloud.key)
        client.add_key()
        id_ = client.launch()
        actions = client.get(id_)["actions"]
        assert isinstance(actions, dict)
        assert actions["terminate"]["reason_code"] == "vm-has-not-launched"
        assert client.terminate(id_)[0] == 400
        clock.now += 60
        assert client.terminate(id_)[0] == 200
        assert cloud.violations == []


def test_a_terminate_that_says_200_and_does_nothing(
    cloud: LambdaCloud, client: Client, clock: Clock
) -> None:
    id_ = client.launch()
    clock.now += 60
    cloud.inject(FAULTS["terminate-ignored"])
    assert client.terminate(id_) == (200, "")
    clock.now += 100
    assert client.get(id_)["status"] == "active"
    assert cloud.bill().running


def test_terminating_takes_long(cloud: LambdaCloud, client: Client, clock: Clock) -> None:
    id_ = client.launch()
    cloud.inject(replace(FAULTS["terminate-slow"], delay=500))
    client.terminate(id_)
    clock.now += 499
    assert client.get(id_)["status"] == "terminating"
    clock.now += 1
    assert client.get(id_)["status"] == "terminated"


def test_a_terminated_entry_can_be_omitted_at_once(clock: Clock) -> None:
    settings = replace(FREE, terminate_seconds=0, linger_seconds=0)
    with LambdaCloud(settings, clock) as cloud:
        client = Client(cloud.base, cloud.key)
        client.add_key()
        client.terminate(client.launch())
        assert client.list() == []


def test_lists_lie(cloud: LambdaCloud, client: Client) -> None:
    id_ = client.launch()
    cloud.inject(FAULTS["list-stale"])
    assert client.list() == []
    cloud.inject(FAULTS["list-unknown-status"])
    assert client.list()[0]["status"] == "hibernating"
    cloud.inject(FAULTS["get-404"])
    assert client.code("GET", f"/instances/{id_}")[0] == 404
    assert client.get(id_)["status"] == "booting"
    cloud.inject(replace(FAULTS["list-bare"], times=1))
    assert not {"name", "hostname", "tags"} & client.list()[0].keys()
    cloud.inject(FAULTS["list-senseless"])
    assert "id" not in client.list()[0]
    assert client.list()[0]["id"] == id_
    assert cloud.violations == [], "what a fault shows is not held against the cloud"


def test_an_outage_refuses_connections_for_a_while(cloud: LambdaCloud, client: Client) -> None:
    cloud.inject(replace(FAULTS["outage"], delay=0.3))
    with pytest.raises(urllib.error.URLError, match="refused"):
        client.list()
    ends = time.monotonic() + 10
    while True:
        try:
            assert client.list() == []
            break
        except urllib.error.URLError:
            assert time.monotonic() < ends
            time.sleep(0.02)


def test_slow_answers(cloud: LambdaCloud, client: Client) -> None:
    cloud.inject(replace(FAULTS["any-slow"], delay=0.1))
    began = time.monotonic()
    client.list()
    assert time.monotonic() - began >= 0.1


def test_a_fault_waits_its_turn_and_ends(clock: Clock) -> None:
    faults = Faults(clock)
    kinds = frozenset({What.RESET})

    def hits(count: int) -> list[bool]:
        return [bool(faults.take("a", kinds)) for _ in range(count)]

    faults.inject(Fault(what=What.RESET, on="a", skip=1, times=2))
    assert faults.take("b", kinds) is None
    assert hits(5) == [False, True, True, False, False]
    faults.inject(Fault(what=What.RESET, times=0, seconds=10))
    assert hits(2) == [True, True]
    clock.now += 10
    assert hits(1) == [False]
    faults.inject(Fault(what=What.RESET, times=0, chance=0.5))
    assert 20 < sum(hits(100)) < 80


def test_hooks_see_every_moment_and_may_cut(cloud: LambdaCloud, client: Client) -> None:
    seen: list[tuple[str, Moment]] = []
    cut: list[Moment] = []

    def hook(entry: Entry, moment: Moment) -> None:
        seen.append((entry.operation, moment))
        if moment in cut:
            raise Drop

    cloud.on_request(hook)
    client.list()
    until(lambda: ("listInstances", Moment.ANSWERED) in seen)
    moments = [moment for operation, moment in seen if operation == "listInstances"]
    assert moments == [Moment.RECEIVED, Moment.DONE, Moment.ANSWERED]
    for moment, launched in ((Moment.RECEIVED, 0), (Moment.DONE, 1)):
        cut[:] = [moment]
        with pytest.raises((ConnectionError, urllib.error.URLError, RemoteDisconnected)):
            client.launch()
        assert len(cloud.bill().lines) == launched


def test_a_client_that_has_gone_disturbs_nobody(cloud: LambdaCloud, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", cloud.port)) as raw:
        raw.sendall(b"POST /api/v1/instance-operations/launch HTTP/1.1\r\nContent-Length: 9\r\n")
    with socket.create_connection(("127.0.0.1", cloud.port)) as raw:
        raw.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
    assert client.list() == []


def test_a_forked_child_does_not_hold_the_door_open(cloud: LambdaCloud, client: Client) -> None:
    """A crash test forks its clients from the process that serves them."""
    children: list[int] = []

    def fork(entry: Entry, moment: Moment) -> None:
        if moment is Moment.RECEIVED and not children:
            children.append(os.fork())
            if not children[0]:
                signal.pause()
                os._exit(0)

    cloud.on_request(fork)
    cloud.inject(FAULTS["launch-reset-before"])
    try:
        with pytest.raises(ConnectionError):
            client.launch()
        cloud.inject(FAULTS["outage"])
        with pytest.raises(urllib.error.URLError, match="refused"):
            client.list()
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


def test_the_other_door(cloud: LambdaCloud, client: Client, clock: Clock) -> None:
    door = f"http://127.0.0.1:{cloud.port}/_control"
    client.data("POST", f"{door}/faults", {"name": "launch-500-after"})
    assert client.code("POST", "/instance-operations/launch", LAUNCH)[0] == 500
    clock.now += 60
    instances = client.data("GET", f"{door}/instances")
    assert isinstance(instances, list)
    assert instances[0]["status"] == "active"
    cut = {"id": instances[0]["id"], "do": "cut"}
    client.data("POST", f"{door}/machines", cut)
    assert client.get(str(instances[0]["id"]))["status"] == "unhealthy"
    bill = client.data("GET", f"{door}/bill")
    assert isinstance(bill, dict)
    assert (len(bill["lines"]), bill["cost"]) == (1, "0")
    log = client.data("GET", f"{door}/log")
    assert isinstance(log, list)
    assert log[-1]["operation"] == "getInstance"
    assert client.data("GET", f"{door}/violations") == []
    assert client.code("POST", f"{door}/faults", {"what": "nonsense"})[0] == 400
    assert client.code("POST", f"{door}/nothing")[0] == 404
    client.data("DELETE", f"{door}/faults")
    client.data("POST", f"{door}/reset")
    assert cloud.bill().lines == ()
    assert cloud.keys() == []


class States(RuleBasedStateMachine):
    """Whatever is asked, in whatever order: the bill adds up and nothing comes back to life."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.faults = Faults(self.clock)
        self.cloud = Cloud(FREE, self.clock, NoHosts(), self.faults)
        self.over: set[str] = set()
        self.spent = Decimal(0)
        perform(self.cloud, "addSSHKey", {}, {"name": "k", "public_key": PUBLIC})

    def ids(self) -> list[str]:
        return list(self.cloud.instances)

    @rule()
    def launch(self) -> None:
        perform(self.cloud, "launchInstance", {}, LAUNCH)

    @rule(seconds=st.floats(min_value=0, max_value=200))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(
        what=st.sampled_from(
            ["boot-for-ever", "boot-unhealthy", "preempted", "terminate-ignored", "boot-new-ip"]
        )
    )
    def trouble(self, what: str) -> None:
        self.faults.inject(FAULTS[what])

    @precondition(lambda self: self.ids())
    @rule(data=st.data())
    def terminate(self, data: st.DataObject) -> None:
        self._ask("terminateInstance", data)

    @precondition(lambda self: self.ids())
    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        self._ask("restartInstance", data)

    @precondition(lambda self: self.ids())
    @rule(data=st.data())
    def switch_off(self, data: st.DataObject) -> None:
        self.cloud.instances[data.draw(st.sampled_from(self.ids()))].host.power_cut()

    def _ask(self, operation: str, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.ids()))
        with suppress(ApiError):
            perform(self.cloud, operation, {}, {"instance_ids": [chosen]})

    @invariant()
    def the_dead_stay_dead(self) -> None:
        lines = {line.id: line for line in self.cloud.bill().lines}
        ended = {id_ for id_, line in lines.items() if line.ended is not None}
        assert self.over <= ended
        self.over = ended
        costing = {each.id for each in self.cloud.alive()}
        assert costing == set(lines) - ended

    @invariant()
    def the_bill_only_grows(self) -> None:
        bill = self.cloud.bill()
        assert bill.cost >= self.spent
        self.spent = bill.cost
        for line in bill.lines:
            assert 0 <= line.seconds <= line.held

    @invariant()
    def what_costs_is_listed(self) -> None:
        shown = perform(self.cloud, "listInstances", {}, {})
        assert isinstance(shown, list)
        assert {each.id for each in self.cloud.alive()} <= {each["id"] for each in shown}
        assert all(each["status"] in list(Status) for each in shown)


TestStates = States.TestCase
TestStates.settings = hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None)
