"""A Kubernetes cluster on loopback: a stateful API server, and pods that are real containers.

::

    with docker_engine.engine() as engine, KubernetesCluster(engine=engine) as cluster:
        subprocess.run(["cvl", "run", "--k8s", ...], env={**os.environ, **cluster.env})
        cluster.inject(FAULTS["log-drops"])
        ...
        assert not cluster.violations

It keeps the promises of `cvl.testing.kube.Cluster`. By hand: `python -m cvl.testing.kubernetes`.
"""

from __future__ import annotations

from cvl.testing.kubernetes.api import Entry, Moment
from cvl.testing.kubernetes.cluster import KubernetesCluster
from cvl.testing.kubernetes.faults import FAULTS, Fault, What
from cvl.testing.kubernetes.world import NodeSpec, Settings

__all__ = [
    "FAULTS",
    "Entry",
    "Fault",
    "KubernetesCluster",
    "Moment",
    "NodeSpec",
    "Settings",
    "What",
]
