"""One attempt of a training job: its containers, under the /opt/ml contract, and their output."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CALL_LIMIT = 120.0
START_TICK = 0.05
ANYWHERE = "10.213.{}.0/24"
FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints")

EVENT_LIMIT = 262_144 - 26
"""Bytes of one event: PutLogEvents counts 26 more for each."""

Write = Callable[[str, Sequence[str]], None]


class Node:
    """One container. Its output goes, line by line, to `write(stream, messages)`."""

    def __init__(
        self, name: str, folder: Path, command: Sequence[str], env: Mapping[str, str]
    ) -> None:
        self.name, self.folder = name, folder
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._pump: threading.Thread | None = None

    @property
    def code(self) -> int | None:
        """The container's exit code, None while it runs."""
        return self._process.poll()

    def carry(self, stream: str, write: Write) -> None:
        """Begin to carry its output. CloudWatch takes no empty events: blank lines are blanks."""

        def pump() -> None:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                for text in events(line):
                    write(stream, [text])

        self._pump = threading.Thread(target=pump, daemon=True)
        self._pump.start()

    def drained(self) -> None:
        """Wait until it has ended and all its output is carried."""
        self._process.wait(CALL_LIMIT)
        if self._pump:
            self._pump.join(CALL_LIMIT)
        if self._process.stdout:
            self._process.stdout.close()


def events(line: bytes) -> Iterator[str]:
    """Yield the events of a line of output: none is empty, or longer than CloudWatch takes."""
    rest = line.decode("utf-8", "replace").rstrip("\n").encode()
    while rest:
        end = min(len(rest), EVENT_LIMIT)
        while end < len(rest) and rest[end] & 0xC0 == 0x80:  # in the middle of a character
            end -= 1
        yield rest[:end].decode()
        rest = rest[end:]


class Attempt:
    """All containers of one attempt."""

    def __init__(self, root: Path, job: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """`env` reaches the Docker engine."""
        self._root, self._job, self._env = root, job, env
        self.hosts = [f"algo-{n + 1}" for n in range(job["ResourceConfig"]["InstanceCount"])]
        self.nodes: list[Node] = []
        self._network = ""

    def pull(self) -> str:
        """Pull the image as SageMaker's host does; return why that failed, or ""."""
        done = self._docker("pull", "-q", self._image, check=False)
        if (
            done.returncode
            and self._docker("image", "inspect", self._image, check=False).returncode
        ):
            return done.stderr.decode(errors="replace").strip()[-300:]
        return ""

    def folder(self, host: str) -> Path:
        """Return what a node sees as /opt/ml."""
        return self._root / host

    def prepare(self) -> None:
        """Make each node's /opt/ml, but for the data."""
        for host in self.hosts:
            for name in FOLDERS:
                (self.folder(host) / name).mkdir(parents=True, exist_ok=True)
            config = self.folder(host) / "input/config"
            (config / "hyperparameters.json").write_text(
                json.dumps(self._job.get("HyperParameters", {}))
            )
            (config / "resourceconfig.json").write_text(json.dumps(self._resources(host)))

    def start(self, write: Write) -> None:
        """Start every container."""
        if len(self.hosts) > 1:
            self._network = f"sm-{uuid.uuid4().hex[:8]}"
            subnet = ANYWHERE.format(uuid.uuid4().int % 250 + 1)
            self._docker("network", "create", "--internal", "--subnet", subnet, self._network)
        for host in self.hosts:
            name = f"{self._job['TrainingJobName']}-{host}-{uuid.uuid4().hex[:6]}"
            node = Node(name, self.folder(host), self._command(host, name), self._env)
            node.carry(f"{self._job['TrainingJobName']}/{host}-{int(time.time())}", write)
            self.nodes.append(node)

    def await_start(self) -> None:
        """Wait until every container runs, or has ended."""
        for node in self.nodes:
            while node.code is None and not self._runs(node):
                time.sleep(START_TICK)

    def codes(self) -> list[int | None]:
        """Return the exit codes, in the order of the nodes."""
        return [node.code for node in self.nodes]

    def signal(self, word: str) -> None:
        """Send a signal to every container that still runs."""
        for node in self.nodes:
            if node.code is None:
                self._docker("kill", "-s", word, node.name, check=False)

    def drain(self) -> None:
        """Carry the rest of the output."""
        for node in self.nodes:
            node.drained()

    def close(self) -> None:
        """Remove everything: after the end, for who waits for that need not wait for this."""
        for node in self.nodes:
            self._docker("rm", "-f", node.name, check=False)
        if self._network:
            self._docker("network", "rm", self._network, check=False)

    def archive(self, what: str) -> Path:
        """Pack `model` or `output/data` of all nodes."""
        file = self._root / f"{what.replace('/', '-')}.tar.gz"
        with tarfile.open(file, "w:gz") as packed:
            for host in self.hosts:
                base = self.folder(host) / what
                for path in sorted(base.rglob("*")):
                    packed.add(path, arcname=str(path.relative_to(base)), recursive=False)
        return file

    def failure(self) -> str:
        """Return what the job itself gave as the reason."""
        for host in self.hosts:
            file = self.folder(host) / "output/failure"
            if file.exists():
                return file.read_text(errors="replace")[:1024]
        return ""

    @property
    def _image(self) -> str:
        return str(self._job["AlgorithmSpecification"]["TrainingImage"])

    def _runs(self, node: Node) -> bool:
        done = self._docker("inspect", "-f", "{{.State.Running}}", node.name, check=False)
        return done.stdout.strip() == b"true"

    def _resources(self, host: str) -> dict[str, object]:
        group = {
            "instance_group_name": "homogeneousCluster",
            "instance_type": self._job["ResourceConfig"]["InstanceType"],
            "hosts": self.hosts,
        }
        return {
            "current_host": host,
            "current_instance_type": group["instance_type"],
            "current_group_name": group["instance_group_name"],
            "hosts": self.hosts,
            "instance_groups": [group],
            "network_interface_name": "eth0",
        }

    def _command(self, host: str, name: str) -> list[str]:
        algorithm = self._job["AlgorithmSpecification"]
        network = self._network or "none"
        words = ["docker", "run", "--name", name, "--network", network, "--hostname", host]
        words += ["--network-alias", host] if self._network else []
        words += ["--volume", f"{self.folder(host)}:/opt/ml"]
        variables = {
            "TRAINING_JOB_NAME": self._job["TrainingJobName"],
            "AWS_REGION": "us-east-1",
            **self._job.get("Environment", {}),
        }
        for key, value in variables.items():
            words += ["--env", f"{key}={value}"]
        entry = algorithm.get("ContainerEntrypoint", [])
        arguments = algorithm.get("ContainerArguments", [])
        if entry:
            return [*words, "--entrypoint", entry[0], self._image, *entry[1:], *arguments]
        return [*words, self._image, *(arguments or ["train"])]

    def _docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["docker", *words],
            env={**os.environ, **self._env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=check,
            timeout=CALL_LIMIT,
        )
