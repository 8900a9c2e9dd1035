"""The user's own Docker CLI: commands whose output is heard line by line, and that a stop ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL, STDOUT, Popen

from cvl.core.child_process import Leashed
from cvl.core.errors import CvlError, MissingTool
from cvl.core.scope import Bell, Scope
from cvl.core.spec import EMPTY

TAIL = 12
"""Last lines of a failed command that are told."""
KILL_LIMIT = 10.0
ASK_LIMIT = 30.0
PLAIN = {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
"""With an attestation an image becomes an index of two, which SageMaker does not take."""


def check() -> None:
    """Raise `MissingTool` where there is no `docker`, `CvlError` where no engine answers."""
    if shutil.which("docker") is None:
        raise MissingTool(
            "docker is not installed",
            "the image is built here: install Docker, or give --image-uri",
        )
    words = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(
            words, stdin=DEVNULL, capture_output=True, timeout=ASK_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        why = done.stderr.decode(errors="replace").strip() if done else "no answer"
        raise CvlError(
            f"the Docker engine does not answer: {why}",
            "start it, or set DOCKER_HOST, or give --image-uri",
        )


def run(
    words: Sequence[str],
    phase: str,
    scope: Scope,
    feed: Iterable[bytes] = (),
    env: Mapping[str, str] = EMPTY,
) -> None:
    """Run `docker WORDS`, with `feed` on its stdin; each line of output is told as `phase`.

    `env` is added to the environment; its values are not shown. Raises `CvlError` with its last
    lines when it fails, and as `scope.checkpoint` does.
    """
    last: deque[str] = deque(maxlen=TAIL)
    bell, errors = Bell(), list[CvlError]()
    whole = {**os.environ, **PLAIN, **env}
    with Leashed(["docker", *words], stderr=STDOUT, env=whole) as process:
        threads = (
            threading.Thread(target=_hear, args=(process, phase, scope, last, bell)),
            threading.Thread(target=_feed, args=(process, feed, errors)),
        )
        for thread in threads:
            thread.start()
        try:
            scope.wait(lambda: process.poll() is not None, bell, pause=0.5)
        finally:
            _end(process)
            for thread in threads:
                thread.join(KILL_LIMIT)
    if errors:
        raise errors[0]
    if process.returncode:
        raise CvlError(f"docker {words[0]} failed: {chr(10).join(last)}")


def _hear(process: Popen[bytes], phase: str, scope: Scope, last: deque[str], bell: Bell) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        text = line.decode(errors="replace").rstrip()
        if text:
            last.append(text)
            scope.tell(phase, text)
    process.wait()
    bell.ring()


def _feed(process: Popen[bytes], feed: Iterable[bytes], errors: list[CvlError]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.writelines(feed)
    except CvlError as error:
        errors.append(error)
        process.kill()
    except BrokenPipeError:
        pass  # it has failed; its own words say why
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _end(process: Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(KILL_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
