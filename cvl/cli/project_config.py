"""What a project may say, and whose project it is: docs/decisions/config.md has the reasons.

A checkout of somebody else's decides neither what runs here, nor where results land, nor whom
secrets go to. Its `cvl.toml` says where its examples are, how long and how dear a run may be, and
which of the runners and hosts that the user's own files name is its usual one. What else stands
in it counts for as long as the user trusts these very bytes; some of it never does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from cvl.cli.config_file import FILE, Key, Layer, Value, content, display
from cvl.core import trust
from cvl.core.frozen import dataclass
from cvl.core.printable import first_of
from cvl.providers import HOSTED
from cvl.providers.common import SETTINGS

NEVER = frozenset({"pod_template", "request_template"})
"""What no project decides, trusted or not: what a provider is asked for beyond what an option can
say."""
KEYS = re.compile(r"(^|_)(keys?|tokens?|passwords?|secrets?)(_(path|file))?\Z")
"""The names of keys, and of whether a host's is taken unseen: never a project's either."""
PUBLIC = frozenset({"pull_secrets"})
"""Names of what lies in the cluster: no key of the user's."""

SHOWN = 12
"""Names of settings in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project's file: its bytes, and whether the user trusts just these."""

    path: Path
    data: bytes
    trusted: bool = False
    changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What the user's own file says; `environ` leads to the ssh_config, which names hosts."""

    layer: Layer | None
    environ: Mapping[str, str]

    def runs_on(self, name: Value) -> bool:
        """Return whether the user's file names this runner."""
        if self.layer is None:
            return name == "local"
        default = self.layer.values.get(("runner",))
        return name in self.layer.runners or name == ("local" if default is None else default)

    def reaches(self, host: Value) -> bool:
        """Return whether the user's files name this host, in just these words."""
        said = self.layer.values if self.layer else {}
        if any(said.get(("runner", runner, "host")) == host for runner in HOSTED):
            return True
        from cvl.transports.ssh.aliases import aliases

        return host in aliases(self.environ)


def nearest(cwd: Path, own: Path | None, warn: Callable[[str], None]) -> Project | None:
    """Return the file of the nearest folder of the user's, or of one that the user trusts.

    `own` is the user's own file, which is no project's. Files of others are not even opened:
    `warn` hears of them. Raises `UsageError` for a file that cannot be read.
    """
    for folder in (cwd, *cwd.parents):
        path = folder / FILE
        if not os.path.lexists(path):
            continue
        if own and os.path.realpath(path) == os.path.realpath(own):
            return None
        if why := trust.doubt(folder, FILE):
            warn(trust.unread(path, why))
            continue
        agreed = trust.find(folder)
        project = read(path, agreed)
        if project.trusted or agreed is None or agreed.owner is None:
            return project
        warn(trust.unread(path, "it has changed since you trusted it"))
    return None


def read(path: Path, agreed: trust.Trust | None) -> Project:
    """Read a project's file, once, and compare it with what the user agreed to.

    Raises `UsageError`.
    """
    data = content(path, also=agreed.owner if agreed else None)
    if agreed is None or not agreed.digest:
        return Project(path=path, data=data)
    same = agreed.digest == trust.fingerprint(data) and agreed.file == os.path.realpath(path)
    return Project(path=path, data=data, trusted=same, changed=not same)


def refused(project: Project, said: Layer, own: Own) -> set[Key]:
    """Return what does not count of what a project's file says."""
    return {key for key, value in said.values.items() if not counts(key, value, said, own, project)}


def admitted(project: Project, said: Layer, refused: Collection[Key]) -> Layer:
    """Return what counts of what a project's file says."""
    kept = {key: value for key, value in said.values.items() if key not in refused}
    if ("output",) in kept:
        folder = _expanded(project.path.parent, str(kept["output",]))
        kept["output",] = os.path.realpath(folder)
    named = frozenset(key[1] for key in kept if len(key) > 1)
    return Layer(path=said.path, values=kept, runners=said.runners if project.trusted else named)


def counts(key: Key, value: Value, said: Layer, own: Own, project: Project) -> bool:
    """Return whether something that a project says counts."""
    if project.trusted:
        return allowed(key, value, project.path.parent)
    match key:
        case ("root",):
            folder = project.path.parent
            return within(folder, value) and not trust.doubt(
                Path(_expanded(folder, str(value))), "examples"
            )
        case ("runner",):
            host = said.values.get(("runner", str(value), "host"))
            to_own_host = value in HOSTED and host is not None and own.reaches(host)
            return to_own_host or own.runs_on(value)
        case ("runner", runner, "host"):
            return runner in HOSTED and own.reaches(value)
        case (name,):
            return name in SETTINGS and SETTINGS[name].said == "counts"
    return False


def allowed(key: Key, value: Value, folder: Path) -> bool:
    """Return whether trust is enough for this to count."""
    name = key[-1]
    if name in NEVER or (KEYS.search(name) and name not in PUBLIC):
        return False
    return name != "output" or _holds_results(folder, value)


def within(folder: Path, value: Value) -> bool:
    """Return whether a path lies in `folder` or is it, all links followed."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    base, place = os.path.realpath(folder), os.path.realpath(_expanded(folder, value))
    return os.path.commonpath([base, place]) == base


def not_counted(project: Project, refused: Collection[Key], home: Path | None) -> str:
    """Say which settings do not count, and how they would; `home` is the user's own file."""
    what, place = first_of(sorted(map(display, refused)), SHOWN), home or f"your own {FILE}"
    if project.trusted:
        return f"{project.path}: in no project's file do these count, trusted or not: {what}"
    since = "has changed since you trusted it; " if project.changed else ""
    return (
        f"{project.path}: {since}in a project's file these do not count: {what}; "
        f"see `cvl trust {trust.quoted(project.path.parent)}`, or put them into {place}"
    )


def _holds_results(folder: Path, value: Value) -> bool:
    if not isinstance(value, str) or not within(folder, value):
        return False
    from cvl.host.download.inert_names import ACTING  # what tools act on by its mere presence

    below = os.path.relpath(os.path.realpath(_expanded(folder, value)), os.path.realpath(folder))
    return ACTING.keys().isdisjoint(part.casefold() for part in Path(below).parts)


def _expanded(folder: Path, value: str) -> str:
    return os.path.join(folder, os.path.expanduser(value))  # noqa: PTH111, PTH118 - a text
