"""Start the cloud by hand: `python -m cvl.testing.sagemaker`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from cvl.testing import docker_engine
from cvl.testing.docker_engine import Engine
from cvl.testing.sagemaker import FAULTS, AwsCloud, Settings, cloud, registry
from cvl.testing.sagemaker.prices import PRICES

TITLE = (
    "# an AWS on loopback: what follows is for the shell in which cvl, docker and aws are called;\n"
    "# jobs run in containers; an image that is there: {image}\n"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until INT or TERM."""
    parser = argparse.ArgumentParser(prog="python -m cvl.testing.sagemaker")
    parser.add_argument("--start-seconds", type=float, default=3.0, help="until a job begins")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(FAULTS))
    options = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if why := cloud.missing() or docker_engine.missing() or registry.missing():
        sys.stderr.write(f"{why}\n")
        return 125
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cvl-registry-")))
        images = registry.ImageRegistry(folder)
        stack.callback(images.close)
        engine = stack.enter_context(docker_engine.engine())
        settings = Settings(start=options.start_seconds)
        running = stack.enter_context(AwsCloud(settings, engine=engine, registry=images))
        for name in options.fault:
            running.inject(FAULTS[name])
        sys.stdout.write(TITLE.format(image=engine.image))
        for name, value in exports(running, engine).items():
            sys.stdout.write(f"export {name}={value}\n")
        sys.stdout.flush()
        stop.wait()
    return 0


def exports(running: AwsCloud, engine: Engine) -> Mapping[str, str]:
    """Return what a shell needs to call cvl without any option but `--sagemaker`."""
    return {
        **running.env,
        "CVL_ROLE_ARN": running.role,
        "CVL_OUTPUT_PATH": running.output,
        "CVL_INSTANCE_TYPE": next(iter(PRICES)),
        "DOCKER_HOST": engine.url,
    }


if __name__ == "__main__":
    sys.exit(main())
