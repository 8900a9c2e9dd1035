"""What of the repository goes into a job's container: its example, and what that reaches for."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from cvl.errors import CvlError
from cvl.paths import private, state_dir
from cvl.remote.hashes import Entry, open_file
from cvl.remote.payload import OLDEST
from cvl.remote.selection import select
from cvl.remote.tree import Tree
from cvl.spec import Source
from cvl.values import dataclass

WORKSPACE, REPO = "workspace", "cvlization_repo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What travels for an example: its own files at the top of `/workspace`, the rest apart."""

    folder: str
    tree: Tree
    warnings: tuple[str, ...] = ()

    @property
    def dockerfile(self) -> bool:
        """Whether the example says how its image is made."""
        return os.fsencode(f"{self.folder}/Dockerfile".lstrip("/")) in self.tree.entries

    def example(self) -> Iterator[tuple[str, bytes, Entry]]:
        """Yield the example's own files: name below its folder, path here from the root, entry."""
        prefix = os.fsencode(f"{self.folder}/" if self.folder else "")
        for path, entry in self.tree.entries.items():
            if path.startswith(prefix):
                yield os.fsdecode(path[len(prefix) :]), self.tree.local.get(path, path), entry

    def placed(self) -> Iterator[tuple[str, bytes, Entry]]:
        """Yield everything: name below `/`, path here from the root, entry."""
        own = set()
        for name, here, entry in self.example():
            own.add(here)
            yield f"{WORKSPACE}/{name}", here, entry
        for path, entry in self.tree.entries.items():
            here = self.tree.local.get(path, path)
            if here not in own:
                yield f"{REPO}/{os.fsdecode(path)}", here, entry


def contents_of(source: Source) -> Contents:
    """Choose and read what travels. Raises `UsageError` and `CvlError` as `select` does."""
    found = select(source, private(state_dir() / "trees"))
    return Contents(
        folder=source.folder.strip("/"), tree=found.tree, warnings=tuple(found.warnings)
    )


def write_tar(
    out: IO[bytes],
    root: Path,
    files: Iterator[tuple[str, bytes, Entry]],
    ours: Mapping[str, bytes],
) -> None:
    """Write a tar of these files, and of `ours`; a name of ours that ends in a slash is a folder.

    Raises `CvlError` if a file has changed since it was chosen.
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for name, data in ours.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(data))
        for name, path, entry in files:
            _add(archive, root, name, path, entry)


def _add(archive: tarfile.TarFile, root: Path, name: str, path: bytes, entry: Entry) -> None:
    member = tarfile.TarInfo(name)
    member.mtime = OLDEST
    if entry.kind == "l":
        member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(entry.content)
        archive.addfile(member)
    elif entry.kind == "d":
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    else:
        member.mode = 0o755 if entry.executable else 0o644
        try:
            with os.fdopen(open_file(os.fsencode(root.absolute()) + b"/" + path), "rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, file)
        except OSError as error:
            raise CvlError(
                f"{os.fsdecode(path)} changed while it was sent: {error.strerror or error}",
                "run it again when nothing writes to it, or name it in .cvlignore",
            ) from error
