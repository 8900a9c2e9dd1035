"""On which machine, in which of our folders there, a run is: by what the machine tells with it.

A name in an ssh_config can be given to another machine, or another user. That one knows nothing
of the run, and that means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cvl.core import identity
from cvl.core.digest import blake2b
from cvl.core.octets import octets
from cvl.host.answers import Answer

RAN_ON = "ran_on"
"""Under which key a handle has it; runs of an older cvl have none."""
ODD = re.compile(r"[^!-~]")
LONGEST = 64
"""Characters of a host's name."""


WHOSE = ("whose", "1")
"""The header that asks for it."""


def told(answers: Iterable[Answer]) -> dict[str, str]:
    """Return what goes into a handle, by what the machine has answered; {} if it has not."""
    rests = [answer.rest for answer in answers if answer.word == "on"]
    return whole(rests[0]) if rests else {}


def whole(rest: str) -> dict[str, str]:
    """Return what goes into a handle of `MACHINE HOST BASE`.

    MACHINE is the machine-id, `-` for none: nobody is shown it, so only a digest is kept. Copies of
    one disk may share it: their names tell them apart.
    """
    machine, _, more = rest.partition(" ")
    host, _, base = more.partition(" ")
    if not base:
        return {}
    key = octets(f"{machine}\0{host}\0{base}")
    digest = blake2b(key, digest_size=8).hexdigest()
    return {RAN_ON: identity.written(id=digest, host=ODD.sub("", host)[:LONGEST])}


def confirm(handle: Mapping[str, str], rest: str, where: str) -> None:
    """Raise `Elsewhere` if `where` says that it is not the machine and folder of the handle."""
    was, now = (identity.parts(each.get(RAN_ON, "")) for each in (handle, whole(rest)))
    if not (was and now) or was.get("id") == now.get("id"):
        return
    before, here = was.get("host", "?"), now.get("host", "?")
    if before == here:
        here += ", with another folder of ours (is it another user there?)"
    raise identity.elsewhere(before, f"{where} is now {here}")
