"""Start the cloud by hand: `python -m cvl.testing.sagemaker`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cvl.testing import docker_engine
from cvl.testing.sagemaker import FAULTS, AwsCloud, Settings, registry


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until INT or TERM."""
    parser = argparse.ArgumentParser(prog="python -m cvl.testing.sagemaker")
    parser.add_argument("--start-seconds", type=float, default=3.0, help="until a job begins")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(FAULTS))
    options = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if why := docker_engine.missing() or registry.missing():
        sys.stderr.write(f"{why}\n")
        return 125
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cvl-registry-")))
        images = registry.ImageRegistry(folder)
        stack.callback(images.close)
        engine = stack.enter_context(docker_engine.engine())
        settings = Settings(start=options.start_seconds)
        cloud = stack.enter_context(AwsCloud(settings, engine=engine, registry=images))
        for name in options.fault:
            cloud.inject(FAULTS[name])
        exports = {**cloud.env, "DOCKER_HOST": engine.url}
        sys.stdout.write("".join(f"export {name}={value}\n" for name, value in exports.items()))
        sys.stdout.write(f"# --role-arn {cloud.role} --output-path {cloud.output}\n")
        sys.stdout.write(f"# an image: {engine.image}\n")
        sys.stdout.flush()
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
