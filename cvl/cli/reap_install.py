"""`cvl reap --install`: a systemd user timer, or a line for cron, that reaps every 10 minutes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import run
from textwrap import dedent

from cvl.errors import CvlError
from cvl.guardian import environment
from cvl.paths import config_dir, private

MARK = "# cvl reap"
SECRETS = ("LAMBDA_API_KEY", "LAMBDA_API_BASE", "AWS_PROFILE", "AWS_REGION", "KUBECONFIG")
"""Variables that a timer would not have by itself."""


def install(environ: Mapping[str, str]) -> str:
    """Write the timer; return what was done, for a person. Raises `CvlError`."""
    env_file = keep_environment(environ)
    words = [sys.executable, "-P", "-m", "cvl", "reap", "-y"]
    if has_systemd(environ):
        return by_systemd(words, env_file, environ)
    return by_cron(words, env_file)


def installed(environ: Mapping[str, str]) -> bool:
    """Return whether a timer of ours is there."""
    if (units(environ) / "cvl-reap.timer").exists():
        return True
    done = crontab("-l")
    return MARK in done


def keep_environment(environ: Mapping[str, str]) -> Path:
    """Write what the timer needs to know into a file of ours, 0600."""
    path = private(config_dir()) / "reap.env"
    lines = [f"{name}={shlex.quote(environ[name])}\n" for name in SECRETS if environ.get(name)]
    ours = environment({})  # the same cvl, wherever it came from
    lines += [f"{name}={shlex.quote(ours[name])}\n" for name in ("CVL_STATE_DIR", "PYTHONPATH")]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write("".join(lines))
    return path


def has_systemd(environ: Mapping[str, str]) -> bool:
    """Return whether the user has a systemd manager that runs."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return bool(runtime) and Path(runtime, "systemd/private").exists()


def units(environ: Mapping[str, str]) -> Path:
    """Return where the user's own systemd units lie."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(base, "systemd/user")


def by_systemd(words: list[str], env_file: Path, environ: Mapping[str, str]) -> str:
    """Write a service and a timer, and start the timer."""
    folder = units(environ)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cvl-reap.service").write_text(
        dedent(f"""\
        [Unit]
        Description=End rented machines that should be over
        [Service]
        Type=oneshot
        EnvironmentFile={literal(str(env_file))}
        ExecStart={literal(shlex.join(words)).replace("$", "$$")}
        """)
    )
    (folder / "cvl-reap.timer").write_text(
        dedent("""\
        [Unit]
        Description=End rented machines that should be over
        [Timer]
        OnBootSec=2min
        OnUnitActiveSec=10min
        [Install]
        WantedBy=timers.target
        """)
    )
    for command in (["daemon-reload"], ["enable", "--now", "cvl-reap.timer"]):
        done = run(["systemctl", "--user", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CvlError(f"systemctl --user {shlex.join(command)}: {done.stderr.strip()}")
    return f"cvl-reap.timer runs `cvl reap -y` every 10 minutes ({folder}/cvl-reap.timer)"


def literal(text: str) -> str:
    """Return a value for a unit file in which `%` begins nothing (systemd.unit(5))."""
    return text.replace("%", "%%")


def by_cron(words: list[str], env_file: Path) -> str:
    """Add a line to the user's crontab, once. Raises `CvlError` where there is no cron either."""
    command = f"set -a; . {shlex.quote(str(env_file))}; {shlex.join(words)}"
    line = f"*/10 * * * * {command.replace('%', chr(92) + '%')} {MARK}"
    kept = [each for each in crontab("-l").splitlines() if not each.endswith(MARK)]
    try:
        done = run(
            ["crontab", "-"],
            input="\n".join([*kept, line, ""]),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CvlError(
            "there is neither a systemd user manager nor cron on this machine",
            f"run this every 10 minutes by other means: {shlex.join(words)}",
        ) from None
    if done.returncode:
        raise CvlError(f"crontab: {done.stderr.strip()}")
    return "a line in your crontab runs `cvl reap -y` every 10 minutes"


def crontab(option: str) -> str:
    """Return what `crontab OPTION` prints, "" without cron or without a table."""
    try:
        return run(["crontab", option], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
