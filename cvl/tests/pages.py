"""Pages of the documentation, and a laboratory where what they show is done."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cvl.cli import config
from cvl.cli.config_file import FILE
from cvl.cli.options import parameters
from cvl.providers import load
from cvl.providers.common import SETTINGS
from cvl.testing.machine import possible
from cvl.testing.sshd import Sshd

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted({*ROOT.glob("*.md")} - {README}), *sorted((ROOT / "docs").rglob("*.md"))]
LIMIT = 300
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLOUD = "python -m cvl.testing.lambda_cloud"
AWS = "python -m cvl.testing.sagemaker"
KUBE = "python -m cvl.testing.kubernetes"
FAST = ("--request-interval", "0", "--launch-interval", "0", "--boot-seconds", "0.1")
SHIMS = {
    "cvl": f'exec {sys.executable} -m cvl "$@"',
    "python": f'exec {sys.executable} "$@"',
    "ssh": f'exec {shutil.which("ssh")} -F "$CVL_SSH_CONFIG" "$@"',
    "make": f'for target do {shutil.which("make")} -n -C {ROOT} "$target" || exit; done',
    "pip": f'[ "$1" = install ] && [ -f {ROOT}/pyproject.toml ]',
    "newest": "cvl ps --json | sed -n '/\"id\": \"/{s///;s/\",$//p;q}' | tr -d ' '",
    "crontab": 'case $1 in -l) cat "$HOME/crontab" ;; -) cat >"$HOME/crontab" ;; esac',
}
"""What stands in for programs that have no place in a test, or would not find their way."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: what it is, and its text."""

    kind: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text("utf-8"))]


def section(page: Path, heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    found = re.search(
        rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found, heading
    return found[1]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Lab:
    """Where one page's commands are run."""

    def __init__(self, folder: Path, host: Sshd) -> None:
        self.folder, self.state = folder / "page", folder / "state"
        self.clouds: list[subprocess.Popen[str]] = []
        for each in (self.folder, folder / "bin", folder / "home"):
            each.mkdir()
        products = shutil.ignore_patterns("outputs", "__pycache__")
        shutil.copytree(ROOT / "examples", self.folder / "examples", ignore=products)
        for name, text in SHIMS.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / "bin" / name).chmod(0o700)
        ours = {key: text for key, text in os.environ.items() if not key.startswith("CVL_")}
        self.env = {
            **ours,
            **host.env,
            **kept_packages(),
            "PATH": f"{folder}/bin:{ours['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder / "home"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "CVL_STATE_DIR": str(self.state),
            "CVL_CACHE_DIR": str(folder / "cache"),
            "LAMBDA_API_RPS": "0",
            "LAMBDA_LAUNCH_INTERVAL": "0",
            "LAMBDA_SETTLE": "0.5",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for cloud in self.clouds:
            cloud.terminate()
            cloud.communicate(timeout=LIMIT)
        for pid in left_running(f"CVL_STATE_DIR={self.state}"):
            os.kill(pid, signal.SIGKILL)

    def run(self, block: Block) -> None:
        """Do what a block says, and see that what it shows happens."""
        match block.kind:
            case "sh":
                self.bash(f"set -eu\n{block.text}")
            case "python" if re.search(r"^ *\.\.\.$", block.text, re.MULTILINE):
                compile(block.text, "a sketch", "exec")
            case "python":
                (self.folder / "example.py").write_text(block.text)
                self.bash("set -e; python example.py; rm example.py")
            case "console":
                self.console(block.text)
            case "toml":
                self.toml(block.text)

    def bash(self, script: str, *, may_fail: bool = False) -> str:
        """Run a script; return all that it wrote."""
        done = subprocess.run(
            ["bash", "-c", re.sub(r"\bRUN\b", "$(newest)", script)],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
        out = done.stdout.decode(errors="replace")
        assert may_fail or done.returncode == 0, f"{script}\n{out}"
        assert "Traceback" not in out, out
        return out

    def console(self, text: str) -> None:
        """Run each command, and find the lines below it in what it writes, in their order."""
        for words in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, *wanted = words.splitlines()
            starts = {CLOUD: self.start_cloud, AWS: self.start_aws, KUBE: self.start_kube}
            start = starts.get(command)
            found = start() if start else self.bash(command, may_fail=True)
            lines = iter(found.splitlines())
            for line in wanted:
                assert any(re.fullmatch(pattern(line), each) for each in lines), (line, found)

    def start_cloud(self) -> str:
        """Start the Lambda Cloud on loopback and take what it says into the environment."""
        kind = "none" if possible() else "machine"
        return self._started(CLOUD, (*FAST, "--hosts", kind), "export LAMBDA_API_KEY")

    def start_aws(self) -> str:
        """Start the AWS on loopback, likewise."""
        return self._started(AWS, ("--start-seconds", "0.2"), "export DOCKER_HOST")

    def start_kube(self) -> str:
        """Start the Kubernetes on loopback, likewise."""
        return self._started(KUBE, (), "export DOCKER_HOST")

    def _started(self, command: str, more: tuple[str, ...], last: str) -> str:
        argv = [sys.executable, *command.split()[1:], *more]
        cloud = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=self.env)
        self.clouds.append(cloud)
        assert cloud.stdout is not None
        said: list[str] = []
        while not said or not said[-1].startswith(last):
            said.append(cloud.stdout.readline())
            assert said[-1], "it did not start"
        self.env |= dict(re.findall(r"^export (\w+)=(\S+)$", "".join(said), re.MULTILINE))
        return "".join(said)

    def toml(self, text: str) -> None:
        """See that nothing in it is ignored, as the user's own file."""
        mine = self.folder.parent / "config/cvl"
        mine.mkdir(parents=True, exist_ok=True)
        (mine / FILE).write_text(text)
        found = config.load(self.folder, {"XDG_CONFIG_HOME": str(mine.parent)})
        (mine / FILE).unlink()
        assert found.layers
        assert found.warnings == ()
        assert {key[0] for key in found.layers[0].values if len(key) == 1} <= SETTINGS.keys()
        for name, own in tomllib.loads(text).get("runner", {}).items():
            if isinstance(own, dict):
                assert set(own) <= {each.name for each in parameters(load(name))}


def left_running(mark: str) -> Iterator[int]:
    """Yield the processes with that in their environment: what a page that failed left behind."""
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in entry.read_bytes().split(b"\0"):
                yield int(entry.parent.name)


def pattern(line: str) -> str:
    words = " ".join(line.split()).split("…")
    return r"\s*" + ".*".join(re.escape(part).replace(r"\ ", r"\s+") for part in words) + r"\s*"


def kept_packages() -> dict[str, str]:
    """Where examples keep the packages that they have installed: not to be made for each test."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return {"XDG_CACHE_HOME": cache, "CVL_NO_DOCKER": "1"}
