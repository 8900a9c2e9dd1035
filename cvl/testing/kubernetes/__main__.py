"""Start a cluster by hand: `python -m cvl.testing.kubernetes`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cvl.testing import docker_engine, needs
from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes import FAULTS, KubernetesCluster, NodeSpec, Settings

PACKAGES = ("cryptography.x509", "websockets")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until INT or TERM."""
    options = _parser().parse_args(argv)
    if why := needs.missing(*PACKAGES):
        sys.stderr.write(f"{why}\n")
        return 125
    why = "" if options.no_pods or options.engine else docker_engine.missing()
    if why:
        sys.stderr.write(f"{why}\nTry --no-pods, or --engine unix:///var/run/docker.sock.\n")
        return 125
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        engine = _engine(options, stack)
        settings = Settings(nodes=tuple(_nodes(options.nodes, options.gpus)))
        cluster = stack.enter_context(KubernetesCluster(settings, engine=engine, port=options.port))
        for name in options.fault:
            cluster.inject(FAULTS[name])
        _greet(cluster, engine)
        stop.wait()
        for complaint in cluster.violations:
            _say(f"# violation: {complaint}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cvl.testing.kubernetes")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--nodes", type=int, default=1, help="how many nodes there are")
    parser.add_argument("--gpus", type=int, default=0, help="nvidia.com/gpu of each node")
    parser.add_argument("--engine", default="", help="the Docker engine; default: one of its own")
    parser.add_argument("--no-pods", action="store_true", help="pods stay Pending: no containers")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(FAULTS))
    return parser


def _engine(options: argparse.Namespace, stack: ExitStack) -> Engine | None:
    if options.no_pods:
        return None
    if not options.engine:
        return stack.enter_context(docker_engine.engine())
    path = Path(options.engine.removeprefix("unix://"))
    if path.name != "docker.sock":
        raise SystemExit("--engine: the socket has to be called docker.sock")
    return Engine(folder=path.parent)


def _nodes(count: int, gpus: int) -> list[NodeSpec]:
    usual = NodeSpec().capacity
    capacity = {**usual, "nvidia.com/gpu": str(gpus)} if gpus else usual
    return [NodeSpec(name=f"node{n + 1}", capacity=capacity) for n in range(count)]


def _greet(cluster: KubernetesCluster, engine: Engine | None) -> None:
    checks = cluster.unchecked or "objects are checked against the official document"
    exports = dict(cluster.env)
    if engine is not None:
        exports["DOCKER_HOST"] = engine.url
    _say(f"# a Kubernetes cluster on loopback, pid {os.getpid()}; {checks}")
    for name, value in exports.items():
        _say(f"export {name}={value}")
    if engine is not None:
        _say(f"# an image: {engine.image} (imagePullPolicy: IfNotPresent)")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
