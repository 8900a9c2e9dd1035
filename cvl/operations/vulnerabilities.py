"""Which versions of the programs that we run have holes that are publicly known.

Only what concerns how we use them: no agent forwarding. Distributions mend holes
without a new version number, so a version is a reason to look, and no proof.
"""

from __future__ import annotations

import re
from typing import NamedTuple

VERSION = re.compile(r"OpenSSH_(\d+(?:[.p]\d+)*)")


class Hole(NamedTuple):
    """What is open from version `since` on and mended in `mended`."""

    mended: tuple[int, ...]
    names: str
    since: tuple[int, ...] = ()


SSH, SSHD = "ssh", "sshd"
HOLES: dict[str, tuple[Hole, ...]] = {
    SSH: (
        Hole((9, 3, 2), "CVE-2023-38408"),
        Hole((9, 6), "CVE-2023-48795, CVE-2023-51385"),
        Hole((9, 9, 2), "CVE-2025-26465", (6, 8)),
        Hole((10, 1), "CVE-2025-61984"),
        Hole((10, 4), "CVE-2026-60002"),
    ),
    SSHD: (
        Hole((9, 6), "CVE-2023-48795"),
        Hole((9, 8), "CVE-2024-6387", (8, 5)),
        Hole((9, 9, 2), "CVE-2025-26466", (9, 5)),
    ),
}
"""By program, the oldest first."""


def version(said: str) -> str:
    """Return the version in what a program says of itself, "" for none: `9.2p1`."""
    match = VERSION.search(said)
    return match[1] if match else ""


def holes(program: str, number: str) -> str:
    """Return what is known to be open in that version, "" for nothing or no version.

    `9.9p1` is before `9.9p2`; `10.0` of OpenSSH is `10.0p1` and more.
    """
    at = tuple(int(part) for part in re.findall(r"\d+", number))
    if not at:
        return ""
    return ", ".join(hole.names for hole in HOLES[program] if hole.since <= at < hole.mended)
