"""The packages that a stand-in needs: looked for before it starts anything."""

from __future__ import annotations

from cvl.core.errors import MissingExtra, explained
from cvl.core.extras import Extra

EXTRA = Extra(name="testing", modules=())


def missing(*packages: str) -> str:
    """Return in one sentence what is not installed and how to install it, "" if all is there."""
    for package in packages:
        try:
            EXTRA.needed(package)
        except MissingExtra as error:
            return explained(error)
    return ""
