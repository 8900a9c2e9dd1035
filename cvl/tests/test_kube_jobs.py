"""What clients of Kubernetes live by: the fake does as the real one does."""

from __future__ import annotations

import re
import time

import pytest

from cvl.core.errors import Taken
from cvl.providers.kubernetes.api_errors import NotYet
from cvl.providers.kubernetes.pod_exec import Failed
from cvl.testing import kube
from cvl.tests.rooms import Room, job

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
    room: Room, container: dict[str, object], reason: str
) -> None:
    room.run("true", container=container)
    room.wait(f"{STATE}.waiting.reason", reason)
    assert room.ask(".status.phase") == "Pending"
    with pytest.raises(NotYet, match="waiting to start"):
        room.log()


def test_what_cannot_be_started_ends_with_a_code(room: Room) -> None:
    room.run("true", container={"command": ["/no/such/program"]})
    assert room.wait(f"{STATE}.terminated.exitCode", "12") in {"127", "128"}
    assert room.wait(f"{STATE}.terminated.reason", "") in {"ContainerCannotRun", "StartError"}


def test_a_pod_past_its_deadline_says_so(room: Room) -> None:
    room.run("sleep 600", pod={"activeDeadlineSeconds": 2, "terminationGracePeriodSeconds": 1})
    room.wait(".status.reason", "DeadlineExceeded")
    assert room.ask(".status.phase") == "Failed"
    room.wait('.status.conditions[?(@.type=="Failed")].reason', "BackoffLimitExceeded", "jobs")


def test_a_job_past_its_deadline_takes_its_pods_along(room: Room) -> None:
    gone = {"terminationGracePeriodSeconds": 1}
    room.run("sleep 600", pod=gone, spec={"activeDeadlineSeconds": 2})
    room.wait('.status.conditions[?(@.type=="Failed")].reason', "DeadlineExceeded", "jobs")
    room.wait_empty("pods")


def test_a_job_that_is_over_goes_after_its_time(room: Room) -> None:
    room.run("true", spec={"ttlSecondsAfterFinished": 2})
    room.wait('.status.conditions[?(@.type=="Complete")].status', "True", "jobs")
    room.wait_empty("jobs", "pods")


def test_what_a_job_owns_goes_with_it(room: Room) -> None:
    room.run("sleep 600", pod={"terminationGracePeriodSeconds": 1})
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "it"}
    owner["uid"] = room.ask(".metadata.uid", "jobs")
    about = {"name": "its", "ownerReferences": [owner]}
    room.apply({"apiVersion": "v1", "kind": "Secret", "metadata": about})
    room.wait(".status.phase", "Running")
    room.api.delete(room.place("jobs", "it"), propagation="Background")
    room.wait_empty("jobs", "pods")
    kube.wait_for(lambda: "its" not in room.ask(".metadata.name", "secrets").split())


def test_a_raw_delete_orphans_the_pods(room: Room) -> None:
    room.run("sleep 600")
    room.wait(".status.phase", "Running")
    room.api._once("DELETE", room.place("jobs", "it"), {})
    room.wait_empty("jobs")
    time.sleep(1)  # for whoever would delete it now
    assert room.ask(".status.phase") == "Running"
    assert not room.ask(".metadata.deletionTimestamp")


def test_a_container_is_asked_to_end_before_it_is_killed(room: Room) -> None:
    room.run("trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done")
    room.wait(".status.phase", "Running")
    while "ready" not in room.log():
        time.sleep(0.1)
    pod = room.place("pods", room.ask(".metadata.name"))
    room.api.patch(pod, {"metadata": {"finalizers": ["test/keep"]}})
    try:
        room.api.delete(pod, propagation="Background")
        assert room.wait(f"{STATE}.terminated.exitCode", "3")
    finally:
        room.api.patch(pod, {"metadata": {"finalizers": None}})


def test_logs_are_cut_as_asked(room: Room) -> None:
    room.run("echo one; sleep 2; echo two; printf three")
    room.wait(f"{STATE}.terminated.reason", "Completed")
    assert room.log(tailLines="2").split() == ["two", "three"]
    assert room.log(limitBytes="6").split() == ["one", "tw"]
    stamped = [line.split(" ", 1) for line in room.log(timestamps="true").splitlines()]
    assert [text for _, text in stamped] == ["one", "two", "three"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{1,9}Z", when) for when, _ in stamped)
    assert room.log(sinceTime=stamped[1][0]).split() == ["two", "three"]


def test_a_followed_log_ends_with_the_container(room: Room) -> None:
    room.run("for i in 1 2 3; do echo $i; sleep 0.5; done; exit 4")
    room.wait(".status.phase", "Running")
    assert room.log(follow="true").split() == ["1", "2", "3"]


def test_a_command_runs_in_a_container(room: Room) -> None:
    room.run("sleep 600")
    room.wait(".status.phase", "Running")
    pod = (room.cluster, room.name, room.ask(".metadata.name"))
    assert kube.execute(*pod, "head", "-c", "10", feed=[b"to an", b"d fro"]) == "to and fro"
    with pytest.raises(Failed, match="why") as failed:
        kube.execute(*pod, "sh", "-c", "echo why >&2; exit 9")
    assert failed.value.code == 9


def test_a_name_is_given_once(room: Room) -> None:
    room.run("true")
    with pytest.raises(Taken, match="already exists"):
        room.api.create(room.place("jobs"), job(room.cluster.image, ["true"]))
