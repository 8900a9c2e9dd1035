"""What runs in a container that cvl does not start itself, and that can start none of its own."""

from __future__ import annotations

import re

from cvl.errors import UsageError
from cvl.spec import JobSpec

SHELL = frozenset({"bash", "sh"})


def command(spec: JobSpec, entry_command: str | None) -> tuple[str, ...]:
    """Return what runs in the container. Raises `UsageError` for a preset that cannot.

    A script that starts Docker is replaced by the Python file that it would run.
    `entry_command` is a line for a shell that runs in any case; the arguments follow it.
    """
    args = spec.argv[len(spec.argv) - len(spec.args) :]
    if entry_command:
        line = entry_command if re.search(r"\$[@*]|\$\{[@*]", entry_command) else None
        return ("sh", "-c", line or f'{entry_command} "$@"', "entry", *args)
    if spec.argv[:2] == ("bash", "-c") or spec.argv[0] not in SHELL:
        return spec.argv
    assert spec.source is not None
    folder = spec.source.root / spec.source.folder
    script = folder / spec.argv[1]
    if script.is_file() and not (spec.needs.docker and starts_docker(script.read_bytes())):
        return spec.argv
    names = [f"{spec.preset}.py", *(["train.py"] if "train" in spec.preset else [])]
    for name in names:
        if (folder / name).is_file():
            return ("python", name, *spec.argv[2:])
    raise UsageError(
        f"preset {spec.preset!r} of {spec.example} starts Docker itself, which no job in a "
        "container can",
        "say what to run instead, such as --entry-command 'python predict.py'",
    )


def starts_docker(script: bytes) -> bool:
    """Return whether a script calls Docker, in a line that is no comment."""
    return re.search(rb"^[^#\n]*\bdocker\b", script, re.MULTILINE) is not None
