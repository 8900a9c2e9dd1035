"""`cvl reap --install`: a systemd user timer, or a line for cron, that reaps every 10 minutes."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import run
from textwrap import dedent

from cvl.cleanup.guardian_client import environment, has_systemd
from cvl.core.errors import CvlError, UsageError
from cvl.core.octets import octets
from cvl.core.paths import anchored, config_dir, private, replace_file
from cvl.core.privacy import trouble

MARK = "# cvl reap"
LASTING = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("https_proxy", "http_proxy", "all_proxy", "no_proxy"),
    *("CVL_CONFIG_DIR", "CVL_CACHE_DIR", "CVL_SSH_CONFIG", "CVL_RUNNER"),
    *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HOME"),
)
"""Variables that decide how whoever is asked is reached. Who that is, and as whom, each provider
knows."""
PASSING = re.compile(r"_TOKEN$|_BEARER_")
"""Those with a login that is good for hours only."""


def install(environ: Mapping[str, str], asked: Mapping[str, str]) -> str:
    """Write the timer, or none of it; return what was done, for a person. Raises `CvlError`.

    `asked` are the variables by which it knows the providers.
    The key is written when the rest is in place, and taken away again where that fails.
    """
    if doubt := trouble():  # the timer runs what stands there
        raise CvlError(f"no timer was installed: {doubt}", doubt.hint)
    text = environment_text(environ, asked)
    try:
        file = private(config_dir()) / "reap.env"
    except OSError as error:
        reason = f"no timer was installed: {config_dir()}: {error.strerror}"
        raise CvlError(reason, "CVL_CONFIG_DIR names another folder") from error
    words = [sys.executable, "-P", "-m", "cvl", "reap", "-y"]
    if has_systemd(environ):
        return by_systemd(words, file, text, environ)
    return by_cron(words, file, text)


def installed(environ: Mapping[str, str]) -> bool:
    """Return whether a timer of ours is there, and what it has to know: that comes last."""
    if not (config_dir() / "reap.env").exists():
        return False
    return (units(environ) / "cvl-reap.timer").exists() or MARK in crontab()


def environment_text(environ: Mapping[str, str], asked: Mapping[str, str]) -> str:
    """Return what the timer needs to know, as sh and systemd both read it. Raises `UsageError`."""
    variables = anchored(dict(sorted({**lasting_variables(environ, LASTING), **asked}.items())))
    ours = environment({})  # the same cvl, wherever it came from
    variables |= {name: ours[name] for name in ("CVL_STATE_DIR", "PYTHONPATH")}
    path = anchored({"PATH": environ.get("PATH") or os.defpath})["PATH"].split(os.pathsep)
    # without the folders that no timer could be given: a login may need others
    variables["PATH"] = os.pathsep.join(folder for folder in path if not unsayable(folder))
    return "".join(f"{name}={literally(value, name)}\n" for name, value in variables.items())


def lasting_variables(environ: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the variables of these names; of one that ends in `_`, all that begin so.

    Logins that will have run out by tomorrow are left out.
    """
    begin = tuple(each for each in names if each.endswith("_"))
    return {
        name: value
        for name, value in sorted(environ.items())
        if value and not PASSING.search(name) and (name in names or name.startswith(begin))
    }


def unsayable(value: str) -> bool:
    """Return whether sh and systemd might read a value differently."""
    return bool(set(value) & set("'\"\\")) or not value.isprintable()


def literally(value: str, name: str) -> str:
    """Return a value in single quotes, in which nothing else has a meaning. Raises `UsageError`.

    Versions of systemd differ in what a backslash means there.
    """
    if unsayable(value):
        raise UsageError(
            f"{name} holds a quote, a backslash or a line break: no timer could be given it",
            "nothing was installed; take it out of the variable, or rename the folder",
        )
    return f"'{value}'"


@contextmanager
def whole(file: Path, undo: Callable[[], None]) -> Iterator[None]:
    """Let what is done here be done whole: whatever ends it, the key goes and `undo` is called.

    What an earlier call has written stays then as it was.
    """
    before = file.read_bytes() if file.exists() else None
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        if before is not None:
            write_privately(file, before)
        undo()
        raise


def write_privately(file: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whatever the umask. Raises `CvlError`."""
    try:
        replace_file(file, data)
    except OSError as error:
        raise CvlError(f"{file} cannot be written: {error.strerror}") from error


def units(environ: Mapping[str, str]) -> Path:
    """Return where the user's own systemd units lie."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(base, "systemd/user")


def by_systemd(words: list[str], env_file: Path, text: str, environ: Mapping[str, str]) -> str:
    """Write a service and a timer, and start the timer."""
    folder = units(environ)
    if not folder.is_dir():  # else it is the user's, as it is
        private(folder)
    service, timer = folder / "cvl-reap.service", folder / "cvl-reap.timer"
    before = {file: file.read_bytes() for file in (service, timer) if file.exists()}

    def undo() -> None:
        with suppress(CvlError):
            if not before:
                systemctl("disable", "--now", timer.name)
        for file in (service, timer):
            file.unlink(missing_ok=True)
            if file in before:
                write_privately(file, before[file])
        with suppress(CvlError):
            systemctl("daemon-reload")

    with whole(env_file, undo):
        write_privately(service, octets(service_unit(words, env_file)))
        write_privately(timer, TIMER.encode())
        systemctl("daemon-reload")
        systemctl("enable", timer.name)
        write_privately(env_file, octets(text))
        systemctl("enable", "--now", timer.name)
    return f"cvl-reap.timer runs `cvl reap -y` every 10 minutes ({timer})"


TIMER = dedent("""\
    [Unit]
    Description=End rented machines that should be over
    [Timer]
    OnBootSec=2min
    OnUnitActiveSec=10min
    [Install]
    WantedBy=timers.target
    """)


def service_unit(words: list[str], env_file: Path) -> str:
    """Return the unit that reaps once."""
    return dedent(f"""\
        [Unit]
        Description=End rented machines that should be over
        [Service]
        Type=oneshot
        EnvironmentFile={literal(str(env_file))}
        ExecStart={literal(shlex.join(words)).replace("$", "$$")}
        """)


def systemctl(*words: str) -> None:
    """Speak to the user's manager. Raises `CvlError`."""
    try:
        result = run(["systemctl", "--user", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise CvlError(f"systemctl cannot be run: {error.strerror}") from error
    if result.returncode:
        raise CvlError(f"systemctl --user {shlex.join(words)}: {result.stderr.strip()}")


def literal(text: str) -> str:
    """Return a value for a unit file in which `%` begins nothing (systemd.unit(5))."""
    return text.replace("%", "%%")


def by_cron(words: list[str], env_file: Path, text: str) -> str:
    """Add a line to the user's crontab, once. Raises `CvlError` where there is no cron either."""
    command = f"set -a; . {shlex.quote(str(env_file))}; {shlex.join(words)}"
    line = f"*/10 * * * * {command.replace('%', chr(92) + '%')} {MARK}"
    before = crontab()
    lines = [each for each in before.splitlines() if not each.endswith(MARK)]

    def undo() -> None:
        with suppress(CvlError):
            if crontab() != before:
                set_crontab(before, words)

    with whole(env_file, undo):
        set_crontab("\n".join([*lines, line, ""]), words)
        write_privately(env_file, octets(text))
    return "a line in your crontab runs `cvl reap -y` every 10 minutes"


def set_crontab(table: str, words: list[str]) -> None:
    """Replace the user's crontab. Raises `CvlError`."""
    try:
        result = run(["crontab", "-"], input=table, capture_output=True, text=True, check=False)
    except OSError:
        raise CvlError(
            "there is neither a systemd user manager nor cron on this machine",
            f"run this every 10 minutes by other means: {shlex.join(words)}",
        ) from None
    if result.returncode:
        raise CvlError(f"crontab: {result.stderr.strip()}")


def crontab() -> str:
    """Return the user's crontab, "" without cron or without a table."""
    try:
        return run(["crontab", "-l"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
