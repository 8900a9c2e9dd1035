"""Where the key of a Lambda account is found, and found again when it was replaced.

`LAMBDA_API_KEY` holds it, or the file that `LAMBDA_API_KEY_FILE` names. A process cannot see that
its environment has changed elsewhere; a file it can. So a key that is refused is looked for in that
file, and in what `cvl reap --install` has noted for its timer.
"""

from __future__ import annotations

import os
from pathlib import Path

from cvl.core.api_key import MOST, checked
from cvl.core.errors import UsageError
from cvl.core.paths import config_dir
from cvl.core.secrets import secret

NAME = "LAMBDA_API_KEY"
FILE = "LAMBDA_API_KEY_FILE"


def lambda_key() -> str:
    """Return the key, "" if there is none. Raises `UsageError` for a file that cannot be read."""
    if key := secret(NAME):
        return checked(key, NAME)
    return _of_file()


def configured() -> bool:
    """Return whether a key is named, good or not."""
    return bool(secret(NAME) or os.environ.get(FILE))


def another(refused: str) -> str:
    """Return a key that was put in place of the one that is refused, "" if there is none."""
    for find in (_of_file, _of_timer):
        try:
            key = find()
        except UsageError:
            continue
        if key not in {"", refused}:
            return key
    return ""


def _of_file() -> str:
    path = os.environ.get(FILE)
    return checked(_read(Path(path)), FILE) if path else ""


def _of_timer() -> str:
    file = config_dir() / "reap.env"
    if not file.exists():
        return ""
    for line in _read(file).splitlines():
        name, _, value = line.partition("=")
        if name == NAME:
            return checked(value.strip("'"), NAME)
    return ""


def _read(file: Path) -> str:
    try:
        with file.expanduser().open(encoding="utf-8") as opened:
            return opened.read(MOST * 4)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"{file} cannot be read: {why}", f"{FILE} names the key's file") from None
