"""Somebody's machine with Docker, and an example that needs it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cvl.testing.cli_harness import Client, Desk, Done
from cvl.testing.docker_engine import Engine

FOLDER = "examples/boxes/docker/boxed"
EXAMPLE = """\
name: boxed
capability: boxes/docker
description: runs what it is told, here and in a container
image: {image}
presets:
  build: {{script: build.sh}}
  sh:
    script: sh.sh
    path_args: [{{flag: --image, type: file}}, {{flag: --output, type: file}}]
"""
BUILD = """\
#!/usr/bin/env bash
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
echo "building it now"
docker build -t IMAGE "$here" 2>&1
"""
SH = '#!/usr/bin/env bash\nset -u\nscript=$1; shift\neval "$script"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A desk in front of a machine with an engine; `image` is what the example's build makes."""

    desk: Desk
    engine: Engine
    image: str

    @property
    def example(self) -> Path:
        return self.desk.repo / FOLDER

    @property
    def run_id(self) -> str:
        return self.desk.runs()[0]

    def write(self, name: str, text: str) -> None:
        """Write a file of the example."""
        path = self.example / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name.endswith(".sh") else 0o644)

    def run(self, script: str, *options: str, args: tuple[str, ...] = ()) -> Done:
        """Run a script of ours to its end; `$IMG` is the example's image."""
        words = ("run", *self.desk.options, *options, "boxed", "sh", self.script(script), *args)
        return self.desk.cvl(*words)

    @contextmanager
    def running(self, script: str, *options: str) -> Iterator[Client]:
        """Run a script of ours; in the end nothing of it is left."""
        words = ("run", *self.desk.options, *options, "boxed", "sh", self.script(script))
        with self.desk.start(*words) as client:
            try:
                yield client
            finally:
                for run in self.desk.runs():
                    if self.desk.left(run):
                        self.desk.cvl("stop", "--grace", "0s", run)

    def script(self, script: str) -> str:
        return f"IMG={self.image}; {script}"

    def tagged(self) -> bool:
        """Tell whether the engine has the example's image."""
        return bool(self.engine.docker("images", "-q", self.image))

    def result(self, name: str) -> bytes:
        return self.desk.result(name)


def slowness(engine: Engine) -> float:
    """Return how much slower this machine is just now than one that is left alone, at least 1."""
    began = time.monotonic()
    engine.docker("run", "--rm", engine.image, "true")
    return max(1.0, (time.monotonic() - began) / 0.5)


def box(folder: Path, engine: Engine, env: Mapping[str, str], *options: str) -> Box:
    """Set up a desk whose runs go to `testhost`, and the example on it; its image is not built."""
    desk = Desk(folder=folder, options=("--docker", "testhost", *options), env=env)
    made = Box(desk=desk, engine=engine, image=f"cvl-test/boxed-{time.monotonic_ns():x}")
    made.write("example.yaml", EXAMPLE.format(image=made.image))
    made.write("build.sh", BUILD.replace("IMAGE", made.image))
    made.write("sh.sh", SH)
    made.write("Dockerfile", f"FROM {engine.image}\nLABEL made=here\n")
    return made
