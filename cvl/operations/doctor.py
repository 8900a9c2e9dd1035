"""What the runners need, here and on a host, and what to do about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial

from cvl.core.errors import CvlError
from cvl.core.interfaces import Transport
from cvl.core.scope import Scope, Tell, silent
from cvl.operations import vulnerabilities
from cvl.providers import flag_of, load, names
from cvl.providers.needs import Check

SEARCH = """
say() { printf '%s\\t%s\\n' "$1" "$2"; }
for tool in bash docker; do
    say "$tool" "$(command -v "$tool" 2>/dev/null)"
done
say python-version "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
# sshd's own words lack the p1; both come of one source
say sshd-version "$({ ssh -V || sshd -V || /usr/sbin/sshd -V; } 2>&1 </dev/null |
    grep OpenSSH_ | head -n 1)"
say docker-says "$(docker info --format '{{.ServerVersion}}' 2>&1 | tail -n 1)"
say docker-works "$(docker info >/dev/null 2>&1 && echo yes)"
query="--query-gpu=name,memory.total --format=csv,noheader"
say gpu "$(nvidia-smi $query 2>/dev/null | tr '\\n' ';')"
say home "$(test -w "$HOME" && echo writable)"
say free-mb "$(df -Pm "$HOME" 2>/dev/null | awk 'END { print $4 }')"
login=org.freedesktop.login1
say kill-user-processes "$(busctl get-property $login /org/freedesktop/login1 $login.Manager \
KillUserProcesses 2>/dev/null)"
say linger "$(test -e "/var/lib/systemd/linger/$(id -un)" && echo yes)"
"""
LIMIT = 60.0
VERSION_LIMIT, MOST = 5.0, 4096
"""Seconds and bytes that a program here may take to say its version."""
FACTS = (
    "home",
    "free-mb",
    "sshd-version",
    "bash",
    "python-version",
    "docker",
    "docker-says",
    "docker-works",
    "gpu",
    "kill-user-processes",
    "linger",
)
FACT_LIMIT = 4096
"""Characters that one of them may have: the GPUs are a list."""
ANY = re.compile(r"[^\x00]*")
NUMBERS = {
    "free-mb": re.compile(r"(?:[0-9]{1,18})?"),
    "python-version": re.compile(r"(?:[0-9]{1,4}\.[0-9]{1,4})?"),
}
"""Those that we reckon with."""
ROOM_MB = 2000
"""Less free space than this is worth a word."""


def here() -> Iterator[Check]:
    """Look at this machine: at what each runner needs, what several need once."""
    from cvl.core.paths import state_dir

    state = state_dir()
    parent = next(folder for folder in (state, *state.parents) if folder.exists())
    writable = os.access(parent, os.W_OK)
    yield Check("state folder", writable, str(state), "set CVL_STATE_DIR to one that is writable")
    yield from known_holes(vulnerabilities.SSH, "ssh version", said_by(("ssh", "-V")))
    checks, flags = dict[str, Check](), dict[str, list[str]]()
    for name in names():
        for check in needed_by(name):
            checks.setdefault(check.what, check)
            flags.setdefault(check.what, []).append(flag_of(name).removesuffix(" HOST"))
    for what, check in checks.items():
        owners = f"needed by {', '.join(flags[what])}" + (f": {check.text}" if check.text else "")
        yield check if check.ok else check._replace(text=owners)


def needed_by(name: str) -> Iterator[Check]:
    """Look at what one runner needs; what goes wrong with that is found, too."""
    try:
        yield from load(name).needs()
    except CvlError as error:
        yield Check(name, None, str(error), error.hint)


def there(host: str, tell: Tell) -> Iterator[Check]:
    """Look at a host through the connection that the runners use; `tell` hears of long waits."""
    from cvl.transports.ssh.openssh import OpenSSH

    try:
        facts = facts_from(OpenSSH(host), tell)
    except CvlError as error:
        yield Check(host, False, str(error), error.hint)
        return
    yield Check(host, True, "reached")
    home, free = facts["home"], int(facts["free-mb"] or 0)
    folder = "choose a folder with --remote-workdir"
    yield Check("home there", bool(home), home or "not writable", folder)
    yield Check("disk there", free > ROOM_MB, f"{free} MB free", "free some space")
    yield from known_holes(vulnerabilities.SSHD, "ssh version there", facts["sshd-version"])
    absent = "most examples' scripts need it"
    yield optional("bash", facts["bash"], absent, "apt install bash")
    yield python_there(facts["python-version"])
    yield docker_there(facts)
    driver = "install the NVIDIA driver, if it has a GPU"
    yield optional("GPU", facts["gpu"], "no NVIDIA driver answers", driver)
    if facts["kill-user-processes"].endswith("true") and not facts["linger"]:
        ends, linger = "KillUserProcesses=yes ends jobs at logout", "sudo loginctl enable-linger"
        yield Check("logind there", False, ends, f"{linger} YOUR_USER")


def optional(what: str, fact: str, absent: str, remedy: str) -> Check:
    """Judge something that not everybody needs there."""
    return Check(f"{what} there", bool(fact) or None, fact or absent, remedy)


def facts_from(transport: Transport, tell: Tell = silent) -> dict[str, str]:
    """Return what the host says of itself; `tell` hears when that takes long. `HostError`."""
    from cvl.core.errors import Silent, Unreachable
    from cvl.host.rpc import FarSide

    far = FarSide(transport)
    search = partial(far.script, SEARCH, b"", LIMIT, Scope(tell=tell))
    try:
        stream, answer = search()
    except Silent:
        raise
    except Unreachable:
        stream, answer = search()  # ssh now says more
    if not stream.complete:
        raise far.unanswered(stream)
    return facts_of(answer, transport.where)


def facts_of(answer: bytes, where: str) -> dict[str, str]:
    """Return the facts that SEARCH has found, "" for one that is not told. Raises `Unreadable`."""
    from cvl.core.errors import Unreadable
    from cvl.host.record import shown

    facts = dict.fromkeys(FACTS, "")
    for row in answer.decode("utf-8", "replace").split("\n"):
        key, _, value = row.partition("\t")
        if key in facts:
            facts[key] = value.strip()
    for key, value in facts.items():
        if len(value) > FACT_LIMIT or not NUMBERS.get(key, ANY).fullmatch(value):
            raise Unreadable(f"what {where} says of its {key} cannot be read: {shown(value)!r}")
    return facts


def known_holes(program: str, what: str, said: str) -> Iterator[Check]:
    """Judge a version; yield nothing where nothing is known to be wrong with it."""
    number = vulnerabilities.version(said)
    if names := vulnerabilities.holes(program, number):
        remedy = "see that your distribution has mended these in its package, or upgrade"
        yield Check(what, None, f"{number}: {names}", remedy)


def said_by(words: Sequence[str]) -> str:
    """Return what a program here says of itself, "" if it does not within some seconds."""
    from subprocess import DEVNULL, PIPE, STDOUT, SubprocessError, run

    try:
        program = run(
            words, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, timeout=VERSION_LIMIT, check=False
        )
    except (OSError, SubprocessError):
        return ""
    return program.stdout[:MOST].decode(errors="replace")


def python_there(version: str) -> Check:
    """Judge the host's Python: `--ssh` needs 3.11."""
    new_enough = version != "" and tuple(map(int, version.split("."))) >= (3, 11)
    remedy = "--ssh needs Python 3.11 there; --docker needs none"
    return Check("python there", new_enough or None, version or "absent", remedy)


def docker_there(facts: dict[str, str]) -> Check:
    """Judge the host's Docker: missing, not running, or not for us."""
    if not facts["docker"]:
        return Check("docker there", None, "not installed", "needed by examples with an image")
    if facts["docker-works"]:
        return Check("docker there", True, facts["docker-says"])
    remedy = "sudo systemctl start docker; or set DOCKER_HOST there, if its socket is another"
    if "permission denied" in facts["docker-says"].lower():
        remedy = "sudo usermod -aG docker YOUR_USER, then log in again; or set DOCKER_HOST there"
    return Check("docker there", False, facts["docker-says"], remedy)
