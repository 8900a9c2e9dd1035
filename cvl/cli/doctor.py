"""`cvl doctor`: what the runners need, here and on a host, and what to do about it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from cvl.cli.terminal import show, show_json
from cvl.core.errors import CvlError
from cvl.core.extras import lacking
from cvl.core.interfaces import Transport
from cvl.core.scope import Scope, Tell, silent
from cvl.operations import vulnerabilities

SEARCH = """
say() { printf '%s\\t%s\\n' "$1" "$2"; }
say shell "$(command -v sh)"
for tool in bash rsync python3 git docker nvidia-smi setsid systemctl script; do
    say "$tool" "$(command -v "$tool" 2>/dev/null)"
done
say python-version "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
say rsync-version "$(rsync --version 2>/dev/null | head -n 1)"
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
SAID, MOST = 5.0, 4096
"""Seconds and bytes that a program here may take to say its version."""
FACTS = (
    "home",
    "free-mb",
    "rsync",
    "rsync-version",
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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `ok` None: not needed by everybody."""

    what: str
    ok: bool | None
    text: str
    remedy: str = ""


@click.command()
@click.option("--host", metavar="HOST", help="Also look at this machine, over SSH.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(host: str | None, as_json: bool) -> int:
    """Check what each runner needs, here and on a host, and say what to do."""
    found = list(here())
    if host is not None:
        found += list(there(host))
    if as_json:
        from dataclasses import asdict

        show_json([asdict(each) for each in found])
    else:
        for each in found:
            for shown in lines(each):
                show(shown)
    return 125 if any(each.ok is False for each in found) else 0


def lines(finding: Finding) -> list[str]:
    """Return one finding for a person: what it is and, where something is to be done, what."""
    mark = {True: "ok     ", False: "MISSING", None: "-      "}[finding.ok]
    remedy = [f"        {finding.remedy}"] if finding.remedy and not finding.ok else []
    return [f"{mark} {finding.what}: {finding.text}", *remedy]


def here() -> Iterator[Finding]:
    """Look at this machine."""
    from cvl.core.paths import state_dir

    state = state_dir()
    parent = next(folder for folder in (state, *state.parents) if folder.exists())
    writable = os.access(parent, os.W_OK)
    yield Finding("state folder", writable, str(state), "set CVL_STATE_DIR to one that is writable")
    for name, runners, package in (
        ("ssh", "--ssh, --docker, --remote", "openssh-client"),
        ("rsync", "--ssh, --docker, --remote", "rsync"),
    ):
        path = shutil.which(name)
        yield Finding(name, bool(path), path or f"needed by {runners}", f"apt install {package}")
    for program, words in (
        (vulnerabilities.RSYNC, ("rsync", "--version")),
        (vulnerabilities.SSH, ("ssh", "-V")),
    ):
        yield from known_holes(program, f"{program} version", said_by(words))
    keys = sorted(Path("~/.ssh").expanduser().glob("id_*.pub"))
    agent = bool(os.environ.get("SSH_AUTH_SOCK"))
    said = ", ".join(key.stem for key in keys) or ("an agent" if agent else "none found")
    yield Finding("ssh keys", bool(keys or agent) or None, said, "ssh-keygen -t ed25519")
    docker = shutil.which("docker")
    yield Finding("docker", bool(docker) or None, docker or "needed by --sagemaker", "")
    for package, extra, runner in (
        ("urllib3", "remote", "--remote lambda"),
        ("boto3", "aws", "--sagemaker"),
        ("websockets", "k8s", "--k8s"),
    ):
        yield extra_of(package, extra, runner)
    yield lambda_key()
    yield from logins()


def logins() -> Iterator[Finding]:
    """Judge what there is of other logins, each by itself; a broken one may be of no use to cvl."""
    from cvl.providers.aws.session import configured as speaks_of_aws
    from cvl.providers.kubernetes.kubeconfig import configured as speaks_of_a_cluster

    looks = (("AWS login", speaks_of_aws, aws_login), ("kubeconfig", speaks_of_a_cluster, cluster))
    for name, there_is, look in looks:
        if there_is():
            try:
                yield look(name)
            except CvlError as error:
                yield Finding(name, None, str(error), error.hint)


def aws_login(name: str) -> Finding:
    """Look for the credentials as a run would; AWS itself is asked only for a role's."""
    from cvl.providers.aws.session import Account

    account = Account()
    found = account.has_credentials()
    text = f"found, for {account.region}" if found else "none found"
    return Finding(name, found or None, text, "log in (`aws sso login`), or set AWS_PROFILE")


def cluster(name: str) -> Finding:
    """Read the kubeconfig; the cluster is not asked."""
    from cvl.providers.kubernetes.kubeconfig import access

    found = access()
    return Finding(name, True, f"context {found.context}, {found.server}")


def extra_of(package: str, extra: str, runner: str) -> Finding:
    """Judge the packages of an extra by loading them, under the name of the one that stands out."""
    wrong = lacking(extra)
    if wrong is None:
        return Finding(package, True, "installed")
    text = f"needed by {runner}"
    if str(wrong) != f"{package} not installed":
        text = f"{text}: {wrong}"
    return Finding(package, None, text, wrong.hint)


def lambda_key() -> Finding:
    """Judge the key of the environment by its look; nobody is asked."""
    name, remedy = "LAMBDA_API_KEY", "make one in the Lambda Cloud dashboard and export it"
    from cvl.providers.lambda_cloud.key import lambda_key as held

    try:
        found = held()
    except CvlError as error:
        return Finding(name, False, str(error), error.hint)
    return Finding(
        name, bool(found) or None, "set" if found else "needed by --remote lambda", remedy
    )


def there(host: str) -> Iterator[Finding]:
    """Look at a host through the connection that the runners use."""
    from cvl.cli.console import Console
    from cvl.transports.ssh.openssh import OpenSSH

    console = Console()
    try:
        facts = asked(OpenSSH(host), console.phase)
    except CvlError as error:
        yield Finding(host, False, str(error), error.hint)
        return
    finally:
        console.close()
    yield Finding(host, True, "reached")
    yield Finding(
        "home there",
        bool(facts["home"]),
        facts["home"] or "not writable",
        "choose a folder with --remote-workdir",
    )
    free = int(facts["free-mb"] or 0)
    yield Finding("disk there", free > ROOM_MB, f"{free} MB free", "free some space")
    yield Finding(
        "rsync there",
        bool(facts["rsync"]) or None,
        facts["rsync"] or "absent: results come by tar, slower and without resuming",
        "apt install rsync",
    )
    yield from known_holes(vulnerabilities.RSYNC, "rsync version there", facts["rsync-version"])
    yield from known_holes(vulnerabilities.SSHD, "ssh version there", facts["sshd-version"])
    yield Finding(
        "bash there",
        bool(facts["bash"]) or None,
        facts["bash"] or "most examples' scripts need it",
        "apt install bash",
    )
    yield python_there(facts["python-version"])
    yield docker_there(facts)
    yield Finding(
        "GPU there",
        bool(facts["gpu"]) or None,
        facts["gpu"] or "no NVIDIA driver answers",
        "install the NVIDIA driver, if it has a GPU",
    )
    if facts["kill-user-processes"].endswith("true") and not facts["linger"]:
        yield Finding(
            "logind there",
            False,
            "KillUserProcesses=yes ends jobs at logout",
            "sudo loginctl enable-linger YOUR_USER",
        )


def asked(transport: Transport, tell: Tell = silent) -> dict[str, str]:
    """Return what the host says of itself; `tell` hears when that takes long. `HostError`."""
    from cvl.core.errors import Silent, Unreachable
    from cvl.host.rpc import FarSide

    far = FarSide(transport)
    try:
        stream, said = far.script(SEARCH, b"", LIMIT, Scope(tell=tell))
    except Unreachable as error:
        if isinstance(error, Silent):
            raise
        stream, said = far.script(SEARCH, b"", LIMIT, Scope(tell=tell))  # ssh now says more
    if not stream.complete:
        raise far.unanswered(stream)
    return facts_of(said, transport.where)


def facts_of(said: bytes, where: str) -> dict[str, str]:
    """Return the facts that SEARCH has found, "" for one that is not told. Raises `Unreadable`."""
    from cvl.core.errors import Unreadable
    from cvl.host.record import shown

    facts = dict.fromkeys(FACTS, "")
    for row in said.decode("utf-8", "replace").split("\n"):
        key, _, value = row.partition("\t")
        if key in facts:
            facts[key] = value.strip()
    for key, value in facts.items():
        if len(value) > FACT_LIMIT or not NUMBERS.get(key, ANY).fullmatch(value):
            raise Unreadable(f"what {where} says of its {key} cannot be read: {shown(value)!r}")
    return facts


def known_holes(program: str, what: str, said: str) -> Iterator[Finding]:
    """Judge a version; yield nothing where nothing is known to be wrong with it."""
    number = vulnerabilities.version(said)
    if names := vulnerabilities.holes(program, number):
        remedy = "see that your distribution has mended these in its package, or upgrade"
        yield Finding(what, None, f"{number}: {names}", remedy)


def said_by(words: Sequence[str]) -> str:
    """Return what a program here says of itself, "" if it does not within some seconds."""
    from subprocess import DEVNULL, PIPE, STDOUT, SubprocessError, run

    try:
        done = run(words, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, timeout=SAID, check=False)
    except (OSError, SubprocessError):
        return ""
    return done.stdout[:MOST].decode(errors="replace")


def python_there(version: str) -> Finding:
    """Judge the host's Python: `--ssh` needs 3.11."""
    numbers = tuple(int(part) for part in version.split(".")) if version else ()
    return Finding(
        "python there",
        (numbers >= (3, 11)) or None,
        version or "absent",
        "--ssh needs Python 3.11 there; --docker needs none",
    )


def docker_there(facts: dict[str, str]) -> Finding:
    """Judge the host's Docker: missing, not running, or not for us."""
    if not facts["docker"]:
        return Finding("docker there", None, "not installed", "needed by examples with an image")
    if facts["docker-works"]:
        return Finding("docker there", True, facts["docker-says"])
    denied = "permission denied" in facts["docker-says"].lower()
    remedy = (
        "sudo usermod -aG docker YOUR_USER, then log in again; or set DOCKER_HOST there"
        if denied
        else "sudo systemctl start docker; or set DOCKER_HOST there, if its socket is another"
    )
    return Finding("docker there", False, facts["docker-says"], remedy)
