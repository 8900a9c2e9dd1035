"""A training image: the example's own, and on top its files and our entry script.

The tag says what is in it. So an unchanged example is neither built nor pushed a second time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from cvl.container.contents import REPO, WORKSPACE, Contents, entry_script, tar
from cvl.core.digest import blake2b
from cvl.core.errors import UsageError
from cvl.core.octets import octets
from cvl.core.scope import Scope
from cvl.providers.sagemaker import docker

BUILD_LIMIT = 4 * 3600.0
PLATFORM = "linux/amd64"
ENTRY = "/opt/cvl/entry.sh"
FORMAT = b"1"
"""Goes up when the same files would make another image."""
ROOT = "root"
"""The folder of the build context that is copied to `/`: in one step, for one thin layer."""


def entry() -> bytes:
    """Return our entry script."""
    return entry_script(Path(__file__).with_name("entry.sh"))


def check(contents: Contents, base: str, name: str) -> None:
    """Raise `UsageError` where nobody says what image an example runs in."""
    if not contents.dockerfile and not base:
        raise UsageError(
            f"{name} has no Dockerfile and names no image",
            "give --image-uri with an image that has all it needs",
        )


def make(
    contents: Contents,
    image: str,
    base: str,
    build_args: Sequence[str],
    scope: Scope,
) -> None:
    """Build the image of that name, tag and all. Raises `CvlError`."""
    if contents.dockerfile:
        base = f"cvl-base:{image.rpartition(':')[2]}"
        scope.tell("building", f"the example's own image, for {PLATFORM}")
        words = build(base, [word for arg in build_args for word in ("--build-arg", arg)])
        docker.run(words, "building", scope, tar(contents.tree, contents.example(), {}))
    scope.tell("building", f"{image}, with the example's files")
    ours = {
        "Dockerfile": octets(layer(base)),
        f"{ROOT}{ENTRY}": entry(),
        **{f"{ROOT}/{folder}/": b"" for folder in (WORKSPACE, REPO)},
    }
    files = ((f"{ROOT}/{name}", path, entry) for name, path, entry in contents.placed())
    docker.run(build(image, []), "building", scope, tar(contents.tree, files, ours))


def tag_of(contents: Contents, *more: str) -> str:
    """Return a tag for an image with just these contents; `more` is what else makes it."""
    digest = blake2b(FORMAT, digest_size=10)
    for part in (contents.tree.id, contents.folder, entry().decode(), *more):
        digest.update(octets(part) + b"\0")
    words = re.findall(r"[a-z0-9]+", contents.folder.rpartition("/")[2].lower())
    return "-".join([*words, digest.hexdigest()])[-128:].lstrip("-")


def build(image: str, more: Sequence[str]) -> tuple[str, ...]:
    """Return the command that builds from a tar on stdin."""
    return ("build", "--platform", PLATFORM, "--tag", image, *more, "--file", "Dockerfile", "-")


def layer(base: str) -> str:
    """Return the Dockerfile of the thin layer. Root, for /opt/ml belongs to it."""
    entry = json.dumps(["/bin/sh", ENTRY])
    return (
        f"FROM {base}\nUSER 0:0\nCOPY {ROOT} /\nWORKDIR /{WORKSPACE}\nENTRYPOINT {entry}\nCMD []\n"
    )
