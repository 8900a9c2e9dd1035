"""Asks git which files belong to a checkout, and lets it start nothing and read no one's secrets.

What a checkout's own configuration names (`core.fsmonitor`, hooks, helpers, proxies, transports)
is a stranger's program. The options and the environment here are all that git is given.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from cvl.core.child_process import Leashed
from cvl.core.errors import CvlError
from cvl.core.scope import Scope, interrupted

SETTINGS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.sshCommand=false",
    "core.askPass=",
    "credential.helper=",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
)
"""What beats the configuration of any checkout."""

FIXED = {
    "LC_ALL": "C",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "",
}
"""An object that is missing is never fetched: no protocol is allowed, whatever a remote is."""

KEPT = ("HOME", "XDG_CONFIG_HOME", "TMPDIR", "SUDO_UID", "LD_LIBRARY_PATH")
"""All that git is told of our environment, besides where programs lie. `SUDO_UID` counts when git
looks at who owns a checkout."""

LIMIT = 300.0
"""Seconds that git may take to list a checkout."""
MOST = 256 << 20
"""Bytes that it may say."""
BLOCK = 1 << 20
LOOK = 0.2
"""Seconds between two looks at whether the user still wants to know."""


class Question:
    """What lies in a folder, asked of git while the caller does something else."""

    def __init__(self, folder: bytes) -> None:
        """Start git, if the folder lies in a checkout."""
        real = os.path.realpath(folder)
        self.checkout = checkout_of(real)
        self._process = _start(real, self.checkout) if self.checkout else None

    def answer(self) -> tuple[bytes, str]:
        """Return the paths below the folder, each with a NUL after it, or why there are none.

        Raises `CvlError` where git takes too long or says too much, and as `interrupted` does.
        """
        if self._process is None:
            return b"", "git is not installed"
        with self._process as git:
            try:
                output, complaint = _heard(git)
            except BaseException:
                git.kill()
                raise
            failed = git.wait()
        return (b"", _reason(complaint)) if failed else (output, "")

    def close(self) -> None:
        """End git, if nobody wants to know any more."""
        if self._process and self._process.returncode is None:
            with self._process as git:
                git.kill()


def program() -> str:
    """Return where git lies, "" without one: never in a folder that depends on where we are."""
    paths = (f"{folder}/git" for folder in _search_path())
    return next((path for path in paths if os.access(path, os.X_OK)), "")


def checkout_of(folder: bytes) -> bytes:
    """Return the nearest folder, this or one above on the same disk, with a `.git`, or b""."""
    while not os.path.lexists(os.path.join(folder, b".git")):  # noqa: PTH118 - bytes
        above = os.path.dirname(folder)  # noqa: PTH120 - bytes
        if above == folder or os.stat(above).st_dev != os.stat(folder).st_dev:  # noqa: PTH116
            return b""
        folder = above
    return folder


def _search_path() -> Iterator[str]:
    path = os.environ.get("PATH", os.defpath)
    yield from (folder for folder in path.split(os.pathsep) if folder.startswith("/"))


def _start(folder: bytes, checkout: bytes) -> Leashed | None:
    """Start git; the files are the checkout's, wherever its configuration says that they lie.

    A pipe in the checkout makes it wait for ever: so it goes when we do.
    """
    git = program()
    if not git:
        return None
    words = [word for setting in SETTINGS for word in ("-c", setting)]
    return Leashed(
        [git, *words, b"--work-tree=" + checkout, "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        env=_environment(checkout),
    )


def _environment(checkout: bytes) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    above = os.fsdecode(os.path.dirname(checkout))  # noqa: PTH120 - bytes
    return {**kept, **FIXED, "PATH": ":".join(_search_path()), "GIT_CEILING_DIRECTORIES": above}


def _heard(git: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return what git says on its two outputs, until it has closed both."""
    from selectors import EVENT_READ, DefaultSelector

    assert git.stdout is not None
    assert git.stderr is not None
    limit = Scope(seconds=LIMIT)
    said = {git.stdout.fileno(): bytearray(), git.stderr.fileno(): bytearray()}
    with DefaultSelector() as waiting:
        for fd in said:
            waiting.register(fd, EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(LOOK)
            interrupted()
            if not ready and limit.remaining() == 0:
                raise _too(f"did not list the files within {LIMIT:.0f} s")
            for key, _ in ready:
                said[key.fd] += (block := os.read(key.fd, BLOCK))
                if not block:
                    waiting.unregister(key.fd)
            if sum(map(len, said.values())) > MOST:
                raise _too(f"lists more than {MOST >> 20} MiB of names")
    output, complaint = said.values()
    return bytes(output), bytes(complaint)


def _too(what: str) -> CvlError:
    hint = "run `git status` there; large untracked folders belong into .gitignore"
    return CvlError(f"git {what}", hint)


def _reason(complaint: bytes) -> str:
    """Return git's reason, and its own remedy where it has one."""
    lines = [line.strip() for line in complaint.decode(errors="replace").splitlines()]
    reason = lines[0].removeprefix("fatal: ") if lines else "it failed"
    remedy = next((line for line in lines if line.startswith("git config ")), "")
    return f"{reason} (to allow it: {remedy})" if remedy else reason
