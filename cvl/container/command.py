"""What runs in a container that cvl does not start itself, and that can start none of its own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from cvl.catalog.script import script_text
from cvl.core.errors import UsageError
from cvl.core.octets import ESCAPE
from cvl.core.spec import JobSpec

SHELL = frozenset({"bash", "sh"})
ARGUMENTS = re.compile(r"\"\$(?:@|\{@\})\"|\$(?:@|\{@\})")
LONGEST = 1 << 14
"""Characters of a line of a script that is taken apart."""
HOLE = "\0"
"""Stands for the arguments while a line is taken apart."""


def command(spec: JobSpec, entry_command: str | None) -> tuple[str, ...]:
    """Return what runs in the container. Raises `UsageError` for a preset that cannot.

    A script that starts Docker is replaced by the Python file that it would run there.
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
    text = script_text(folder / spec.argv[1], ESCAPE)
    if text is not None and not (spec.needs.docker and starts_docker(text)):
        return spec.argv
    names = [f"{spec.preset}.py", *(["train.py"] if "train" in spec.preset else [])]
    files = (("python", name, *spec.argv[2:]) for name in names if (folder / name).is_file())
    if words := docker_runs(text or "", spec.argv[2:], folder) or next(files, None):
        return words
    why = "starts Docker itself, which no job in a container can"
    if text is None:
        why = f"needs {spec.argv[1]}, which is not there"
    raise UsageError(
        f"preset {spec.preset!r} of {spec.example} {why}",
        f"there is no {' or '.join(names)} to run in its place: say what to run, such as "
        "--entry-command 'python predict.py'",
    )


def starts_docker(script: str) -> bool:
    """Return whether a script calls Docker, in a line that is no comment, and has to."""
    if "CVL_NO_DOCKER" in script:
        return False
    return re.search(r"^[^#\n]*\bdocker\b", script, re.MULTILINE) is not None


def docker_runs(script: str, args: Sequence[str], folder: Path) -> tuple[str, ...] | None:
    """Return what a script's `docker run` would run: a Python file, with the script's own words.

    None where it is none of `folder`, and where only a shell could say what is meant.
    """
    for line in re.sub(r"\\\n\s*", " ", script).splitlines():
        if len(line) > LONGEST:
            continue
        match = re.search(r"^(?>[^#]*\bdocker\s+run\b).*?\s(python3?\s.*)$", line)
        words = _words(match[1]) if match else []
        file = next((word for word in words[1:] if not re.match(r"-[a-ln-zA-Z]", word)), "")
        name = file.removeprefix("/workspace/")
        if name.endswith(".py") and (folder / name).is_file():
            words[words.index(file)] = name
            return _fill_in(words, args)
    return None


def _words(line: str) -> list[str]:
    """Return the words of a line that says all there is to say, none of any other."""
    plain = ARGUMENTS.sub(HOLE, line)
    try:
        return [] if re.search(r"[$`|;&<>()*?~]", plain) else shlex.split(plain)
    except ValueError:  # a quote that is not closed here
        return []


def _fill_in(words: Sequence[str], args: Sequence[str]) -> tuple[str, ...]:
    if HOLE not in words:
        return (*words, *args)
    at = words.index(HOLE)
    return (*words[:at], *args, *words[at + 1 :])
