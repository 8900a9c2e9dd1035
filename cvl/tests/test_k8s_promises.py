"""K8sRunner keeps the promises that every runner keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing import conformance, kube
from cvl.testing.cli_harness import Desk
from cvl.testing.conformance import CHECKS, Check
from cvl.testing.kubernetes import KubernetesCluster
from cvl.tests.kubes import desk, ours

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]
APART = {
    *(conformance.output_bytes, conformance.live_output),
    *(conformance.timeout_is_ours, conformance.killed_attach),
}
"""Docker as a node's runtime keeps lines of text: half a line is not shown, bytes that are no text
are lost. A second is too short for a timeout that counts from the node: see test_k8s_runner.py,
which asks a real cluster, too, what becomes of a job whose attach was killed."""


@pytest.fixture
def there(fake_cluster: KubernetesCluster, tmp_path: Path) -> Iterator[Desk]:
    with kube.fresh_namespace(fake_cluster) as namespace:
        calling = desk(tmp_path, fake_cluster, namespace)
        yield calling
        for run in calling.runs():
            assert not ours(fake_cluster, run)


@pytest.mark.parametrize(
    "check", [each for each in CHECKS if each not in APART], ids=lambda check: check.__name__
)
def test_promise(check: Check, there: Desk) -> None:
    check(there)
