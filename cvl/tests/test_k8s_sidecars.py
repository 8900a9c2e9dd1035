"""What others put into a pod beside a job: neither its time nor its exit code is theirs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvl.core.spec import ExitStatus
from cvl.providers.kubernetes import manifest
from cvl.runners import K8sRunner
from cvl.testing.cli_harness import Desk
from cvl.testing.kube import Cluster
from cvl.tests.kubes import desk, ours

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
DEAF = "trap '' TERM INT; while :; do sleep 1; done"
SOON = 60.0
"""Seconds, on a busy computer; a pod's own grace is ten minutes."""
Inject = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def there(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    made = desk(tmp_path, cluster, namespace)
    for name, value in {**made.env, "CVL_STATE_DIR": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    return made


def injected(monkeypatch: pytest.MonkeyPatch, inject: Inject) -> None:
    """Let each pod come with more in it, as admission webhooks do."""
    plain = manifest._pod

    def pod(*given: Any) -> dict[str, Any]:
        made = plain(*given)
        beside = {"imagePullPolicy": "IfNotPresent", "image": made["containers"][0]["image"]}
        inject(made, beside)
        return made

    monkeypatch.setattr(manifest, "_pod", pod)


def first(script: str) -> Inject:
    def inject(pod: dict[str, Any], beside: dict[str, Any]) -> None:
        sidecar = {**beside, "name": "proxy", "command": ["sh", "-c", script]}
        pod["containers"] = [sidecar, *pod["containers"]]

    return inject


def last(script: str) -> Inject:
    def inject(pod: dict[str, Any], beside: dict[str, Any]) -> None:
        sidecar = {**beside, "name": "proxy", "command": ["sh", "-c", script]}
        pod["containers"] = [*pod["containers"], sidecar]

    return inject


def before(script: str, **more: object) -> Inject:
    def inject(pod: dict[str, Any], beside: dict[str, Any]) -> None:
        setup = {**beside, "name": "setup", "command": ["sh", "-c", script], **more}
        pod["initContainers"] = [setup]

    return inject


def run(calling: Desk, namespace: str, script: str, **more: Any) -> tuple[ExitStatus, bytes]:
    out: list[bytes] = []
    status = K8sRunner(namespace=namespace).run(
        *("one", "sh", [script]),
        root=calling.repo,
        image=calling.options[calling.options.index("--image") + 1],
        output_dir=calling.folder / "results",
        on_output=lambda chunk: out.append(chunk.data),
        **more,
    )
    return status, b"".join(out)


@pytest.mark.parametrize(
    "inject",
    [first(DEAF), last(DEAF), first("exit 0"), last("exit 5"), first("sleep 1; exit 1")],
    ids=["deaf first", "deaf last", "ended", "failed", "failing"],
)
def test_a_sidecar_costs_neither_time_nor_the_code(
    inject: Inject,
    cluster: Cluster,
    namespace: str,
    there: Desk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    injected(monkeypatch, inject)
    began = time.monotonic()
    status, out = run(there, namespace, "sleep 3; echo out; echo a >a; exit 4")
    assert (int(status), status.cause, out) == (4, "exited", b"out\n")
    assert (there.folder / "results/a").read_bytes() == b"a\n"
    assert time.monotonic() - began < SOON
    assert not ours(cluster, status.run_id)


def test_a_job_beside_a_deaf_sidecar_is_stopped_in_time(
    cluster: Cluster, namespace: str, there: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    injected(monkeypatch, first(DEAF))
    ready, began = threading.Event(), time.monotonic()
    script = "trap 'echo saved >saved; exit 9' TERM; echo ready; while :; do sleep .1; done"

    def stop() -> None:
        ready.wait(SOON)
        there.cvl("stop", there.runs()[0])

    with_stop = threading.Thread(target=stop, daemon=True)
    with_stop.start()
    status = K8sRunner(namespace=namespace).run(
        *("one", "sh", [script]),
        root=there.repo,
        image=cluster.image,
        output_dir=there.folder / "results",
        on_output=lambda _: ready.set(),
    )
    with_stop.join(SOON)
    assert (int(status), status.cause) == (143, "stopped")
    assert (there.folder / "results/saved").read_bytes() == b"saved\n"
    assert time.monotonic() - began < SOON
    assert not ours(cluster, status.run_id)


def test_an_init_container_that_fails_is_named_with_its_last_words(
    cluster: Cluster, namespace: str, there: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    injected(monkeypatch, before("echo fetching; echo no such bucket; exit 3"))
    status, out = run(there, namespace, "echo ran")
    assert (int(status), status.cause, out) == (125, "not-started", b"")
    assert "init container setup ended with exit code 3" in status.detail
    assert "fetching | no such bucket" in status.detail
    assert not ours(cluster, status.run_id)


def test_an_init_container_that_can_never_start_ends_the_run(
    cluster: Cluster, namespace: str, there: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = {"image": "cvl-test/absent:1", "imagePullPolicy": "Never"}
    injected(monkeypatch, before("true", **never))
    status, _ = run(there, namespace, "echo ran")
    assert (int(status), status.cause) == (125, "not-started")
    assert "init container setup: ErrImageNeverPull" in status.detail


def test_what_stands_before_a_job_changes_nothing_else(
    cluster: Cluster, namespace: str, there: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    injected(monkeypatch, before("echo not ours; sleep 1"))
    status, out = run(there, namespace, "echo out; exit 4")
    assert (int(status), out) == (4, b"out\n")
    assert not ours(cluster, status.run_id)
