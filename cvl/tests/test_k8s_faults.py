"""Whatever breaks while a Job is made, followed and ended: none is forgotten, no byte is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.providers.kubernetes.client import api_path
from cvl.testing import kube
from cvl.testing.cli_harness import Client, Desk, wait_for
from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes import FAULTS, Entry, Fault, KubernetesCluster, Moment, What
from cvl.tests.kubes import desk, ours
from cvl.tests.test_fetching import disk

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
FOREVER = "while :; do sleep .1; done"
QUICK = {"CVL_KUBE_READ": "2"}
BARRED = ("create-401-before", "create-403-before")
LOST = [name for name in FAULTS if name.startswith(("create-", "secret-")) and name not in BARRED]
"""Among them that it was made and its answer says that we may not."""


@pytest.fixture(scope="module")
def clusters(shared_engine: Engine) -> Iterator[KubernetesCluster]:
    with KubernetesCluster(engine=shared_engine) as running:
        yield running


@pytest.fixture
def cluster(clusters: KubernetesCluster) -> Iterator[KubernetesCluster]:
    yield clusters
    clusters.world.faults.clear()
    clusters.api.hooks.clear()
    assert not clusters.violations


@pytest.fixture
def there(cluster: KubernetesCluster, tmp_path: Path) -> Iterator[Desk]:
    with kube.fresh_namespace(cluster) as namespace:
        made = desk(tmp_path, cluster, namespace)
        calling = Desk(
            folder=made.folder, options=made.options, env={**made.env, **QUICK}, left=made.left
        )
        yield calling
        for run in calling.runs():
            assert not ours(cluster, run)


def requests(cluster: KubernetesCluster, operation: str) -> int:
    return sum(each.operation == operation for each in cluster.log)


@pytest.mark.parametrize("name", LOST)
def test_a_lost_reply_makes_one_job_and_follows_it(
    name: str, cluster: KubernetesCluster, there: Desk
) -> None:
    seen = len(cluster.log)
    cluster.inject(FAULTS[name])
    done = there.sh("echo a >a; exit 3")
    assert done.code == 3, done.err
    assert there.result("a") == b"a\n"
    made = [each for each in cluster.log[seen:] if each.operation == "create jobs"]
    assert len([each for each in made if each.status == 201 and not each.fault]) <= 1


@pytest.mark.parametrize("name", BARRED)
def test_a_refusal_is_told_and_leaves_nothing(
    name: str, cluster: KubernetesCluster, there: Desk
) -> None:
    """Also one that proves nothing by itself: it is looked for, and is not there."""
    cluster.inject(FAULTS[name])
    done = there.sh("true")
    assert done.code == 125
    assert not ours(cluster)
    assert "still open" not in done.err
    (run,) = there.ps()
    assert run["state"] == "ended"


@pytest.mark.parametrize("what", [What.STREAM_DROPS, What.STREAM_ENDS])
def test_output_is_exact_over_many_broken_streams(
    what: What, cluster: KubernetesCluster, there: Desk
) -> None:
    """Streams that end after less than is written in a second, for which they can be asked."""
    cluster.inject(Fault(what=what, on="get pods/log", times=60, count=200, spread=3000))
    before = requests(cluster, "get pods/log")
    script = (
        "for i in $(seq 1500); do echo line $i é; [ $((i % 50)) != 0 ] || sleep .2; done; "
        "head -c 1500 /dev/zero | tr '\\0' x; printf half; exit 5"
    )
    with there.start("run", *there.options, "one", "sh", script) as client:
        done = client.ended(240)
    whole = b"".join(f"line {i} é\n".encode() for i in range(1, 1501)) + b"x" * 1500 + b"half"
    assert done.code == 5, done.err
    assert done.out == whole
    assert there.cvl("logs", there.runs()[0]).out == whole
    assert requests(cluster, "get pods/log") - before >= 50


@pytest.mark.parametrize(
    "name",
    [
        *("job-get-500", "job-get-404", "list-stale", "list-500", "list-429", "list-410"),
        *("log-400", "log-500", "log-429"),
        *(name for name in FAULTS if name.startswith("delete-") and name != "delete-stuck"),
    ],
)
def test_what_passes_does_not_end_a_run(name: str, cluster: KubernetesCluster, there: Desk) -> None:
    with there.start("run", *there.options, "one", "sh", "echo one; sleep 2; echo a >a") as client:
        client.shows(b"one")
        cluster.inject(FAULTS[name])
        done = client.ended(120)
    assert (done.code, done.out) == (0, b"one\n"), done.err
    assert there.result("a") == b"a\n"


@pytest.mark.parametrize("name", ["outage", "outage-503"])
def test_an_outage_is_waited_out(name: str, cluster: KubernetesCluster, there: Desk) -> None:
    script = "for i in $(seq 40); do echo line $i; sleep .2; done; exit 4"
    with there.start("run", *there.options, "one", "sh", script) as client:
        client.shows(b"line 3\n")
        cluster.inject(FAULTS[name])
        done = client.ended(120)
    assert done.code == 4, done.err
    assert done.out == b"".join(b"line %d\n" % i for i in range(1, 41))


def test_an_eviction_is_named(cluster: KubernetesCluster, there: Desk) -> None:
    cluster.inject(FAULTS["evicted"])
    done = there.sh(FOREVER)
    assert (done.code, there.ps()[0]["cause"]) == (125, "lost"), done.err
    assert "Evicted: " in done.err


def test_what_cannot_be_seen_gone_is_told_loudly(cluster: KubernetesCluster, there: Desk) -> None:
    cluster.inject(FAULTS["delete-stuck"])
    calling = Desk(folder=there.folder, options=there.options, env=there.env, left=there.left)
    with calling.start("run", *calling.options, "one", "sh", "true") as client:
        done = client.ended(200)
    assert done.code == 125
    assert "not seen gone: job cvl-" in done.err
    assert "cvl reap" in done.err
    job = f"{api_path('jobs', calling.options[2])}/cvl-{calling.runs()[0]}"
    kube.client(cluster).patch(job, {"metadata": {"finalizers": None}})
    assert calling.cvl("reap", "-y").code == 0


POINTS = [
    (operation, number, moment)
    for operation, number in [
        ("create secrets", 1),
        ("create secrets", 2),
        ("create jobs", 1),
        ("patch secrets", 1),
        ("patch secrets", 2),
        ("get jobs", 1),
        ("list pods", 2),
        ("get pods/log", 1),
        ("get pods/exec", 1),
        ("get pods/exec", 2),
        ("delete jobs", 1),
        ("list secrets", 1),
    ]
    for moment in (Moment.RECEIVED, Moment.DONE)
]


@pytest.mark.parametrize(("operation", "number", "moment"), POINTS)
def test_nothing_is_left_after_kill_9_and_reap(
    operation: str, number: int, moment: Moment, cluster: KubernetesCluster, there: Desk
) -> None:
    """Killed before a request has taken effect, and when it has and its reply is not sent."""
    seen: list[Entry] = []
    running: list[Client] = []

    def hook(entry: Entry, now: Moment) -> None:
        if (entry.operation, now) == (operation, moment):
            seen.append(entry)
            if len(seen) == number:
                running[0].process.kill()
                running[0].process.wait(10)

    client = there.start("run", *there.options, "-e", "TOKEN=x", "one", "sh", "echo a >a; sleep 1")
    with client:
        running.append(client)
        cluster.api.hooks.append(hook)
        wait_for(lambda: client.process.poll() is not None)
    cluster.api.hooks.clear()
    assert len(seen) >= number, client.err
    assert client.process.returncode == -9
    end = there.cvl("reap", "-y")
    assert end.code == 0, end.err
    assert not ours(cluster), end.err
    assert there.ps()[0]["state"] == "ended"


def test_a_job_that_is_made_late_is_found(cluster: KubernetesCluster, there: Desk) -> None:
    """The reply is lost, and so is the client: the Job appears when nobody waits for it."""
    cluster.inject(Fault(what=What.LATE, on="create jobs", delay=1.0))
    with there.start("run", *there.options, "one", "sh", FOREVER) as client:
        wait_for(lambda: requests(cluster, "create jobs") > 0)
        client.process.kill()
        client.ended()
    assert there.cvl("reap", "-y").code == 0
    wait_for(lambda: not ours(cluster))


BUSY = Fault(what=What.HTTP, status=503, times=0, seconds=15.0, retry_after=2)
AWAY = Fault(what=What.OUTAGE, delay=8.0)
CUT = Fault(what=What.RESET, on="get pods/exec", times=6)
BARRED_FOR_A_WHILE = Fault(what=What.HTTP, on="get pods/exec", status=401, times=5)


@pytest.mark.parametrize("fault", [BUSY, AWAY, CUT, BARRED_FOR_A_WHILE], ids=lambda f: str(f.what))
def test_results_are_asked_for_until_they_come(
    fault: Fault, cluster: KubernetesCluster, there: Desk
) -> None:
    """From the moment on at which they are first asked for; nothing is deleted meanwhile."""

    def hook(entry: Entry, now: Moment) -> None:
        if (entry.operation, now) == ("get pods/exec", Moment.RECEIVED) and not seen:
            seen.append(entry)
            cluster.inject(fault)

    seen: list[Entry] = []
    cluster.api.hooks.append(hook)
    done = there.sh("echo a >a; exit 3")
    assert done.code == 3, done.err
    assert there.result("a") == b"a\n"
    assert "asking again" in done.err
    assert seen


@pytest.mark.parametrize("how", ["timeout", "stop"])
def test_results_of_a_job_that_was_ended_wait_for_who_wants_them(
    how: str, cluster: KubernetesCluster, there: Desk
) -> None:
    """Longer than the 30 seconds that they have where nobody does."""

    def hook(entry: Entry, now: Moment) -> None:
        asks = entry.operation == "get pods/exec" and "collect" in entry.path
        if asks and now is Moment.RECEIVED and not seen:
            seen.append(entry)
            cluster.inject(Fault(what=What.HTTP, on="get pods/exec", times=0, seconds=45))

    seen: list[Entry] = []
    cluster.api.hooks.append(hook)
    limit = ("--timeout", "6s") if how == "timeout" else ()
    with there.running(f"echo a >a; echo ready; {FOREVER}", *limit) as client:
        client.shows(b"ready")
        if how == "stop":
            client.signal(signal.SIGTERM)
        done = client.ended(150)
    assert done.code == {"timeout": 124, "stop": 143}[how], done.err
    assert there.result("a") == b"a\n", done.err
    assert seen


def test_a_full_disk_here_keeps_the_results_there(
    cluster: KubernetesCluster, there: Desk, tmp_path: Path
) -> None:
    with disk(tmp_path / "small") as small:
        done = there.sh("head -c 3000000 /dev/zero >big; exit 3", "-o", str(small / "r"))
        assert done.code == 125
        assert "No space left on device" in done.err
        (run,) = there.runs()
        assert f"`cvl fetch {run} -o DIR` gets them" in done.err
        assert any(each.startswith("Pod") for each in ours(cluster, run))
        got = there.cvl("fetch", run, "-o", str(tmp_path / "large"))
        assert got.code == 0, got.err
        assert (tmp_path / "large/big").stat().st_size == 3_000_000
        end = there.cvl("attach", run)
        assert end.code == 3, end.err
    assert not ours(cluster, run)


def test_who_leaves_hears_nothing_more_of_the_output(
    cluster: KubernetesCluster, there: Desk
) -> None:
    run = there.sh(f"echo ran; {FOREVER}", "-d").out.decode().strip()
    with there.start("attach", run) as client:
        client.shows(b"ran")
        client.signal(signal.SIGTERM)
        done = client.ended()
    assert "lives on" in done.err
    assert "cannot be read" not in done.err
    assert there.cvl("stop", run).code == 0
    wait_for(lambda: not ours(cluster, run))  # its guardian may still be about to end it
