"""The main job, shown: an example is trained on a remote machine and its results come back.

The remote machine is a throw-away sshd on loopback with a home folder of its own. Everything
else is real: the commands are those that a user types. Nothing of it is left running.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Self

from cvl.core.errors import CvlError
from cvl.core.units import size
from cvl.testing.sshd import Sshd

Handler = Callable[[int, FrameType | None], object] | int | None

HOST = "demo-host"
RESULTS = Path("cvl-runs/demo")
RUN = ("cvl", "run", "--ssh", HOST, "-o", str(RESULTS), "digits", "train", "--epochs", "15")
NETWORK = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"})
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the demo in the current folder; return the exit code of its `cvl run`."""
    try:
        with tempfile.TemporaryDirectory(prefix="cvl-demo-") as folder:
            return _demo(Path(folder))
    except CvlError as error:
        sys.stderr.write(f"demo: {error}\nhint: {error.hint}\n")
        return error.exit_code


def _demo(folder: Path) -> int:
    with Typist() as typist, _host(folder / "host") as host:
        env = {**os.environ, **host.env, "CVL_STATE_DIR": str(folder / "state"), "PATH": _path()}
        _say(f"# {HOST} is a private sshd on {host.address}, port {host.port}")
        code = typist.type(RUN, env)
        typist.type(("cvl", "ps", "-a"), env)
        if code == 0:
            _show_results()
    return code


class Typist:
    """Types commands, as it were. Signals go to the command under way, and end the session."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._signals: list[int] = []
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._forward) for number in FORWARDED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def type(self, argv: tuple[str, ...], env: Mapping[str, str]) -> int:
        """Run one command to its end; return its exit code, 128 + n after signal n."""
        if self._signals:
            return 128 + self._signals[-1]
        _say(f"$ {shlex.join(argv)}")
        # a process group of its own: what we are sent reaches it once, through us
        with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, process_group=0) as child:
            self._child = child
            if self._signals:  # it came before there was anybody to pass it on to
                child.send_signal(self._signals[-1])
            code = child.wait()
        self._child = None
        _say("")
        return code if code >= 0 else 128 - code

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        if self._child:
            self._child.send_signal(number)


def _host(folder: Path) -> Sshd:
    """Return somebody else's machine: our Python and cache of packages, nothing else of ours."""
    own = {name: text for name, text in os.environ.items() if _is_network(name)}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    env = {**own, "XDG_CACHE_HOME": cache, "CVL_NO_DOCKER": "1"}
    return Sshd(folder, name=HOST, path=_path(), env=env)


def _is_network(name: str) -> bool:
    return name.upper() in NETWORK or name.startswith("PIP_")


def _path() -> str:
    here = sysconfig.get_path("scripts")
    return os.pathsep.join((here, os.environ.get("PATH", os.defpath)))


def _show_results() -> None:
    _say(f"# The results lie in {RESULTS.resolve()}:")
    files = sorted(path for path in RESULTS.rglob("*") if path.is_file())
    for path in files:
        _say(f"{size(path.stat().st_size):>9}  {path.relative_to(RESULTS)}")
    for path in files:
        if path.name == "metrics.json":
            _say(f"\n# The end of {path}:")
            _say("\n".join(_numbers(json.loads(path.read_text()))))


def _numbers(metrics: Mapping[str, object]) -> Iterator[str]:
    """Yield what can be read at a glance: not the tables, and of the epochs the last."""
    for name, value in metrics.items():
        last = value[-1] if isinstance(value, list) and value else value
        if isinstance(last, dict):
            yield from (f"{name} {line}" for line in _numbers(last))
        elif not isinstance(value, list):
            yield f"{name}: {value}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
