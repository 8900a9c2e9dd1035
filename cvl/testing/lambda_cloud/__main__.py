"""Start the cloud by hand: `python -m cvl.testing.lambda_cloud`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from cvl.testing.lambda_cloud import FAULTS, LambdaCloud, Settings
from cvl.testing.lambda_cloud.plain_hosts import abandoned, sweep
from cvl.testing.lifeline import orphans

KINDS = ("auto", "machine", "sshd", "none")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until INT or TERM, then show the bill."""
    options = _parser().parse_args(argv)
    if options.clean:
        return _clean()
    settings = Settings(
        key=options.key,
        hosts=options.hosts,
        boot_seconds=options.boot_seconds,
        request_interval=options.request_interval,
        launch_interval=options.launch_interval,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with LambdaCloud(settings, port=options.port) as cloud:
        for name in options.fault:
            cloud.inject(FAULTS[name])
        _greet(cloud)
        stop.wait()
        _say(_bill(cloud))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cvl.testing.lambda_cloud")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--key", default="", help="the API key; default: a random one")
    parser.add_argument("--boot-seconds", type=float, default=5.0)
    parser.add_argument("--request-interval", type=float, default=1.0, help="seconds; 0: no limit")
    parser.add_argument("--launch-interval", type=float, default=12.0, help="seconds; 0: no limit")
    parser.add_argument("--hosts", choices=KINDS, default="auto", help="what is rented out")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(FAULTS))
    parser.add_argument("--clean", action="store_true", help="remove what a kill -9 left behind")
    return parser


def _greet(cloud: LambdaCloud) -> None:
    checks = cloud.unchecked or "requests and replies are checked against the official document"
    exports = "\n".join(f"export {name}={value}" for name, value in cloud.env.items())
    _say(f"# a Lambda Cloud on loopback; hosts: {cloud.hosts.kind}; {checks}\n{exports}")


def _bill(cloud: LambdaCloud) -> str:
    lines = [
        f"# {line.name or line.id}: {line.type}, {line.seconds:.1f} s,"
        f" billed {line.minutes} min, ${line.cost:.4f}"
        + (" - STILL RUNNING" if line.ended is None else "")
        for line in cloud.bill().lines
    ]
    return "\n".join([*lines, f"# total: ${cloud.bill().cost:.4f}"])


def _clean() -> int:
    folders, processes = abandoned(), orphans()
    for folder in folders:
        sweep(folder)
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _say(f"# removed: {len(folders)} folders, {len(processes)} processes")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
