"""Who is asked about a run, and whether it is still who it was when the run began.

A context, a profile, a key or an alias may lead somewhere else by now. Whoever is asked there
knows nothing of the run, and that means nothing. So the far side's identity is noted in the run's
handle, and nothing is taken for gone by anybody else's word. What is *seen* there under our name
and tag is ours all the same: keys are replaced, colleagues share an account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvl.core.errors import CvlError, Elsewhere
from cvl.core.interfaces import Identified, Owner
from cvl.core.spec import Resource

IDENTITY = "identity"
"""Under which key a handle has it; runs of an older cvl have none, and are asked as ever."""
HINT = "nothing was concluded; go back to the one that it ran on, then do this again"


def noted(handle: Mapping[str, str]) -> str:
    """Return whom a run is on, "" where that was not noted."""
    return handle.get(IDENTITY, "")


def of(owner: object) -> str:
    """Return whom `owner` asks, "" where it cannot tell. Raises as `Identified.identity`."""
    return owner.identity() if isinstance(owner, Identified) else ""


def confirm(owner: object, identity: str) -> None:
    """Raise `Elsewhere` unless `owner` asks whom `identity` names, "" is anybody.

    Raises `CvlError` where that cannot be known now.
    """
    if identity and isinstance(owner, Identified):
        owner.confirm(identity)


def stranger(owner: Owner, handle: Mapping[str, str], held: Sequence[Resource]) -> CvlError | None:
    """Return why what `owner` lacks may be elsewhere, None if it is whom the run is on.

    Whoever shows a machine of the run, of what it has `held`, is: keys are replaced. So is who
    shows a thing whose id is nowhere else, of the kinds `owner.unique`: addresses change.
    """
    try:
        confirm(owner, noted(handle))
    except Elsewhere as error:
        sure = [
            each for each in held if each.price_per_hour is not None or each.kind in owner.unique
        ]
        proof = {(each.kind, each.id) for each in sure if each.id}
        shown = any((each.kind, each.id) in proof for each in owner.owned() if each.alive)
        return None if shown else error
    except CvlError as error:
        return error
    return None


def written(**parts: str) -> str:
    """Return an identity as one line: `name=value` words, without those that are empty."""
    words = {name: "".join(value.split()) for name, value in parts.items()}
    return " ".join(f"{name}={value}" for name, value in words.items() if value)


def parts(identity: str) -> dict[str, str]:
    """Return the words of an identity by their names."""
    return dict(word.split("=", 1) for word in identity.split() if "=" in word)


def elsewhere(was: str, now: str) -> Elsewhere:
    """Return the error that says where a run is, and who was asked instead."""
    return Elsewhere(f"it ran on {was}; {now}", HINT)
