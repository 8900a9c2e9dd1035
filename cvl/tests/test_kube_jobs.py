"""What clients of Kubernetes live by: the fake does as the real one does."""

from __future__ import annotations

import re
import time

import pytest

from cvl.core.errors import Taken
from cvl.providers.kubernetes.api_errors import NotYet
from cvl.providers.kubernetes.pod_exec import Failed
from cvl.testing import kube
from cvl.tests.kube_namespaces import Namespace, job

STATE = ".status.containerStatuses[*].state"
SECRET = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "x"}}}


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ({"image": "127.0.0.1:1/absent:1"}, "ErrImagePull"),
        ({"image": "Not An Image"}, "InvalidImageName"),
        ({"image": "absent:1", "imagePullPolicy": "Never"}, "ErrImageNeverPull"),
        ({"env": [SECRET]}, "CreateContainerConfigError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_a_container_waits_is_said(
    ns: Namespace, container: dict[str, object], reason: str
) -> None:
    ns.run("true", container=container)
    ns.wait(f"{STATE}.waiting.reason", reason)
    assert ns.ask(".status.phase") == "Pending"
    with pytest.raises(NotYet, match="waiting to start"):
        ns.log()


def test_what_cannot_be_started_ends_with_a_code(ns: Namespace) -> None:
    ns.run("true", container={"command": ["/no/such/program"]})
    assert ns.wait(f"{STATE}.terminated.exitCode", "12") in {"127", "128"}
    assert ns.wait(f"{STATE}.terminated.reason", "") in {"ContainerCannotRun", "StartError"}


def test_a_pod_past_its_deadline_says_so(ns: Namespace) -> None:
    ns.run("sleep 600", pod={"activeDeadlineSeconds": 2, "terminationGracePeriodSeconds": 1})
    ns.wait(".status.reason", "DeadlineExceeded")
    assert ns.ask(".status.phase") == "Failed"
    ns.wait('.status.conditions[?(@.type=="Failed")].reason', "BackoffLimitExceeded", "jobs")


def test_a_job_past_its_deadline_takes_its_pods_along(ns: Namespace) -> None:
    gone = {"terminationGracePeriodSeconds": 1}
    ns.run("sleep 600", pod=gone, spec={"activeDeadlineSeconds": 2})
    ns.wait('.status.conditions[?(@.type=="Failed")].reason', "DeadlineExceeded", "jobs")
    ns.wait_empty("pods")


def test_a_job_that_is_over_goes_after_its_time(ns: Namespace) -> None:
    ns.run("true", spec={"ttlSecondsAfterFinished": 2})
    ns.wait('.status.conditions[?(@.type=="Complete")].status', "True", "jobs")
    ns.wait_empty("jobs", "pods")


def test_what_a_job_owns_goes_with_it(ns: Namespace) -> None:
    ns.run("sleep 600", pod={"terminationGracePeriodSeconds": 1})
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "it"}
    owner["uid"] = ns.ask(".metadata.uid", "jobs")
    about = {"name": "its", "ownerReferences": [owner]}
    ns.apply({"apiVersion": "v1", "kind": "Secret", "metadata": about})
    ns.wait(".status.phase", "Running")
    ns.api.delete(ns.place("jobs", "it"), propagation="Background")
    ns.wait_empty("jobs", "pods")
    kube.wait_for(lambda: "its" not in ns.ask(".metadata.name", "secrets").split())


def test_a_raw_delete_orphans_the_pods(ns: Namespace) -> None:
    ns.run("sleep 600")
    ns.wait(".status.phase", "Running")
    ns.api._once("DELETE", ns.place("jobs", "it"), {})
    ns.wait_empty("jobs")
    time.sleep(1)  # for whoever would delete it now
    assert ns.ask(".status.phase") == "Running"
    assert not ns.ask(".metadata.deletionTimestamp")


def test_a_container_is_asked_to_end_before_it_is_killed(ns: Namespace) -> None:
    ns.run("trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done")
    ns.wait(".status.phase", "Running")
    while "ready" not in ns.log():
        time.sleep(0.1)
    pod = ns.place("pods", ns.ask(".metadata.name"))
    ns.api.patch(pod, {"metadata": {"finalizers": ["test/keep"]}})
    try:
        ns.api.delete(pod, propagation="Background")
        assert ns.wait(f"{STATE}.terminated.exitCode", "3")
    finally:
        ns.api.patch(pod, {"metadata": {"finalizers": None}})


def test_logs_are_cut_as_asked(ns: Namespace) -> None:
    ns.run("echo one; sleep 2; echo two; printf three")
    ns.wait(f"{STATE}.terminated.reason", "Completed")
    assert ns.log(tailLines="2").split() == ["two", "three"]
    assert ns.log(limitBytes="6").split() == ["one", "tw"]
    stamped = [line.split(" ", 1) for line in ns.log(timestamps="true").splitlines()]
    assert [text for _, text in stamped] == ["one", "two", "three"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{1,9}Z", when) for when, _ in stamped)
    assert ns.log(sinceTime=stamped[1][0]).split() == ["two", "three"]


def test_a_followed_log_ends_with_the_container(ns: Namespace) -> None:
    ns.run("for i in 1 2 3; do echo $i; sleep 0.5; done; exit 4")
    ns.wait(".status.phase", "Running")
    assert ns.log(follow="true").split() == ["1", "2", "3"]


def test_a_command_runs_in_a_container(ns: Namespace) -> None:
    ns.run("sleep 600")
    ns.wait(".status.phase", "Running")
    pod = (ns.cluster, ns.name, ns.ask(".metadata.name"))
    assert kube.execute(*pod, "head", "-c", "10", feed=[b"to an", b"d fro"]) == "to and fro"
    with pytest.raises(Failed, match="why") as failed:
        kube.execute(*pod, "sh", "-c", "echo why >&2; exit 9")
    assert failed.value.code == 9


def test_a_name_is_given_once(ns: Namespace) -> None:
    ns.run("true")
    with pytest.raises(Taken, match="already exists"):
        ns.api.create(ns.place("jobs"), job(ns.cluster.image, ["true"]))
