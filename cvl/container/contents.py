"""What of the repository goes into a job's container: its example, and what that reaches for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from cvl.core.frozen import dataclass
from cvl.core.paths import private, state_dir
from cvl.core.spec import Source
from cvl.host.tarstream import END, FILE, FOLDER, Member, whole
from cvl.host.upload.hashes import Entry
from cvl.host.upload.payload import OLDEST, tree_pieces
from cvl.host.upload.selection import select
from cvl.host.upload.tree import Tree

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
    selection = select(source, private(state_dir() / "trees"))
    return Contents(
        folder=source.folder.strip("/"), tree=selection.tree, warnings=tuple(selection.warnings)
    )


def entry_script(own: Path) -> bytes:
    """Return a service's entry script, behind what all of them begin with."""
    return Path(__file__).with_name("entry.sh").read_bytes() + b"\n" + own.read_bytes()


def tar(
    tree: Tree, files: Iterator[tuple[str, bytes, Entry]], ours: Mapping[str, bytes]
) -> Iterator[bytes]:
    """Yield a tar of these files, and of `ours`; a name of ours that ends in a slash is a folder.

    Equal files give equal bytes. Raises `CvlError` if a file has changed since it was chosen.
    """
    for name, data in ours.items():
        kind = FOLDER if name.endswith("/") else FILE
        member = Member(name=os.fsencode(name), kind=kind, size=len(data), mode=0o755)
        yield whole(member, data)
    placed = ((os.fsencode(name), path, entry) for name, path, entry in files)
    yield from tree_pieces(tree, placed, OLDEST)
    yield END
