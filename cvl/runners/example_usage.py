"""The Python API, in short: `python -m cvl.runners.example_usage ssh [HOST]`, or `lambda`.

What a run returns is an `int`, the script's own exit code, that also says why the run ended.
What goes wrong on our side raises a `CvlError`, whose `hint` says what to do.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cvl import CvlError, ExitStatus, LogChunk
from cvl.core.printable import one_line
from cvl.runners import LambdaLabsRunner, LocalRunner, SSHRunner

USAGE = "usage: python -m cvl.runners.example_usage ssh [HOST] | local | lambda [GPU_TYPE]\n"
EXAMPLE, PRESET, ARGS = "digits", "train", ["--epochs", "3"]


def ssh(host: str = "localhost") -> ExitStatus:
    """Run an example on a machine of yours: output as it comes, results in ./cvl-runs."""
    return SSHRunner().run_remote(
        host=host,
        example=EXAMPLE,
        preset=PRESET,
        args=ARGS,
        timeout_minutes=10,
        on_output=show,
        on_event=tell,
    )


def local() -> ExitStatus:
    """Run it here."""
    return LocalRunner().run(EXAMPLE, PRESET, ARGS, on_output=show, on_event=tell)


def lambda_(gpu_type: str | None = None) -> ExitStatus:
    """Rent the cheapest machine that will do, run, and be done only once it is seen gone."""
    return LambdaLabsRunner().run(
        EXAMPLE,
        PRESET,
        ARGS,
        gpu_type=gpu_type,
        timeout_minutes=10,
        on_output=show,
        on_event=tell,
    )


def show(chunk: LogChunk) -> None:
    """Pass the job's bytes on, just as they are."""
    sys.stdout.buffer.write(chunk.data)
    sys.stdout.buffer.flush()


def tell(phase: str, text: str) -> None:
    """Say what is being done; what a host or a provider has said acts on no terminal."""
    sys.stderr.write(one_line(f"[{phase}] {text}") + "\n")


def main(words: Sequence[str]) -> int:
    """Run the example that `words` name; return the exit code."""
    usages = {"ssh": (ssh, 1), "local": (local, 0), "lambda": (lambda_, 1)}
    name, *rest = words or [""]
    usage, most = usages.get(name, (local, -1))
    if len(rest) > most or any(word.startswith("-") for word in rest):
        sys.stderr.write(USAGE)
        return 2
    try:
        status: ExitStatus = usage(*rest)
    except CvlError as error:
        sys.stderr.write(f"{one_line(str(error))}\n{one_line(error.hint)}\n")
        return error.exit_code
    sys.stderr.write(f"run {status.run_id} ended: {status.cause}, exit code {int(status)}\n")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
