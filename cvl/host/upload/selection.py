"""Which local files travel for an example, so that its scripts find what they reach for.

1. the example's folder;
2. the package `cvlization/` at the root;
3. the files directly in the root and in each folder between it and the example, and the folders
   beside the example, or beside one of its parents, that hold no example (`../test_images`);
4. what the files of 1 and 3 that are not prose mention as `../x` or from the root (`$REPO_ROOT/x`,
   `/cvlization_repo/x`, `examples/x`), except the root's own, and what links point to: if it lies
   in an example, that whole example;
5. what the user includes.

`.cvlignore` files (gitignore syntax) in the root, the example and between can take away 1 to 4.
Secrets (`secret_files.py`) stay here and are named, whatever reaches for them, unless the user
includes the very file, or the folder that is itself a secret's by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from errno import EFBIG
from pathlib import Path
from posixpath import normpath

from cvl.core.digest import blake2b
from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.printable import first_of
from cvl.core.safe_dir import Folders, parents
from cvl.core.spec import Source
from cvl.host.download.inert_names import under_own_names
from cvl.host.upload.hashes import Entry, Hashes
from cvl.host.upload.repository_files import Listing, walk
from cvl.host.upload.secret_files import any_named, named
from cvl.host.upload.tree import Tree, prune

Rule = tuple[bytes, Callable[[str], bool]]

NAMED = 20
"""How many links, and secrets that stay here, are named, at most."""
STARS = 3
"""How often `/**/` may stand in a line of a `.cvlignore`."""
STAR = re.compile(
    r"\[\^/\]\*((?:\\.|\[(?:\\.|[^\]\\])++\](?![*+])|[^\\\[\](){}*+?|^$.])*+)(?=\[\^/\]\*)"
)
"""A `*` with what follows it before the next one, as `pathspec` puts it. The first place that fits
is as good as any later one, so that it is never given up again."""
MOST = 1 << 20
"""Bytes that a `.cvlignore` may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What travels, and what a person should know about it."""

    tree: Tree
    warnings: tuple[str, ...] = ()


def select(source: Source, state: Path, without: Collection[Path] = ()) -> Selection:
    """Choose and read the files that travel for `source`.

    `state` is a folder of ours that remembers what files hold. `without` are folders of earlier
    results, which stay here. Raises `UsageError` for an included path that cannot be had, and
    `CvlError` if a file does not stand still.
    """
    with closing(Listing(source.root)) as listing:
        kept = state / f"files-{blake2b(listing.root, digest_size=16).hexdigest()}"
        with closing(Hashes(source.root, kept)) as hashes:
            chooser = _Chooser(source, listing, hashes, without)
            chooser.take(_basis(listing, chooser.example))
            chooser.follow()
            chooser.include(source.include)
    hashes.save()
    prune(state, "files-*")
    return Selection(
        tree=Tree(chooser.entries, source.root, hashes, under_own_names(chooser.entries)),
        warnings=(
            *listing.warnings,
            *hashes.warnings,
            *_staying(chooser.leading_out(), chooser.secrets),
        ),
    )


def _staying(links: Sequence[tuple[bytes, bytes]], secrets: Mapping[bytes, str]) -> Iterator[str]:
    """Yield what a person is told of links that lead out of the repository, and of secrets."""
    if links:
        names = [f"{os.fsdecode(path)} -> {os.fsdecode(target)}" for path, target in links]
        yield f"only the links travel, not what they lead to: {first_of(names, NAMED)}"
    if secrets:
        names = [f"{os.fsdecode(path)}{what and f' ({what})'}" for path, what in secrets.items()]
        yield f"stay here: {first_of(names, NAMED)}; --include NAME sends one"


class _Chooser:
    """Gathers entries: paths are taken, then what they mention, until nothing is new."""

    def __init__(
        self, source: Source, listing: Listing, hashes: Hashes, without: Iterable[Path]
    ) -> None:
        self.example = os.fsencode(source.folder.strip("/"))
        self.entries: dict[bytes, Entry] = {}
        self.secrets: dict[bytes, str] = {}
        self._listing = listing
        self._hashes = hashes
        self._rules = _rules(listing.root, self.example)
        self._without = tuple(_relative(source.root, without))
        self._above = {b"", self.example, *parents(self.example)}
        self._included = {os.fsencode(normpath(name)) for name in source.include}
        self._new: list[bytes] = []
        self._reached: set[bytes] = set()

    def take(self, paths: Iterable[bytes], *, anyhow: bool = False) -> None:
        """Add what lies at these paths; `anyhow`: also what a `.cvlignore` names."""
        entries, above = self.entries, self._above
        fresh = [p for p in dict.fromkeys(paths) if p not in entries and p not in above]
        known, others = self._hashes.unchanged(self._allowed(fresh, anyhow=anyhow))
        self.entries.update(known)
        self._new += sorted(known.keys() & self._hashes.mentions.keys())
        for path in others:
            entry = self._hashes.entry(path)
            if entry is None:
                continue
            if entry.kind == "d":
                self._take_folder(path, entry, anyhow=anyhow)
                continue
            secret = self._hashes.secrets.get(path)
            if secret and not self._wanted(path):
                self.secrets[path] = secret
                continue
            self.entries[path] = entry
            if entry.kind == "l" or path in self._hashes.mentions:
                self._new.append(path)

    def follow(self) -> None:
        """Take what the files taken so far mention, and what that mentions."""
        while self._new:
            news, self._new = self._new, []
            for path in news:
                for target in self._targets(path):
                    if target not in self._reached:
                        self._reached.add(target)
                        self.take(self._listed(target))

    def include(self, names: Iterable[str]) -> None:
        """Take what the user names, ignored or not."""
        for name in names:
            path = os.fsencode(normpath(name))
            inner = path != b".." and not path.startswith((b"/", b"../"))
            linked = any(self._full(parent).is_symlink() for parent in parents(path))
            if not inner or linked or not os.path.lexists(self._full(path)):
                raise UsageError(
                    f"cannot include {name}: no such path below {os.fsdecode(self._listing.root)}",
                    "name it relative to the repository's root, not through a link",
                )
            self._refuse_a_link_to_elsewhere(name, path)
            folder = b"" if path == b"." else path
            if self._full(path).is_dir() and not self._full(path).is_symlink():
                self.take(walk(self._listing.root, folder, everything=True), anyhow=True)
            else:
                self.take([path], anyhow=True)

    def _refuse_a_link_to_elsewhere(self, name: str, path: bytes) -> None:
        """Raise `UsageError` for a link by whose name nothing would be sent but the link."""
        full = self._full(path)
        if not full.is_symlink():
            return
        if _leads_out(path, os.fsencode(full.readlink())) or not os.path.exists(full):  # noqa: PTH110
            raise UsageError(
                f"cannot include {name}: it is a link to {full.readlink()}, which is not in the "
                "repository",
                "put a copy of what it leads to into the repository",
            )

    def leading_out(self) -> list[tuple[bytes, bytes]]:
        """Return the links that lead out of the repository to something, and where to."""
        links = ((path, entry.content) for path, entry in self.entries.items() if entry.kind == "l")
        return [
            (path, target)
            for path, target in links
            if _leads_out(path, target) and os.path.exists(self._full(path))  # noqa: PTH110
        ]

    def _full(self, path: bytes) -> Path:
        return Path(os.fsdecode(self._listing.root + b"/" + path))

    def _allowed(self, paths: list[bytes], *, anyhow: bool) -> list[bytes]:
        if self._without:
            paths = [path for path in paths if not path.startswith(self._without)]
        rules = [] if anyhow else self._rules
        paths = [path for path in paths if not _matches(rules, path)] if rules else paths
        return [path for path in paths if self._may_go(path)] if any_named(paths) else paths

    def _may_go(self, path: bytes) -> bool:
        """Return whether no name on the way to `path` is a secret's; note it otherwise."""
        secret = named(path)
        if not secret or self._wanted(path):
            return True
        if os.path.lexists(self._full(secret)):
            self.secrets[secret] = ""
        return False

    def _wanted(self, path: bytes) -> bool:
        """Return whether the user includes just this, or the folder of secrets that it is in."""
        return path in self._included or named(path) in self._included - {b""}

    def _take_folder(self, folder: bytes, entry: Entry, *, anyhow: bool) -> None:
        """Add a folder that git names as one: empty, or a repository of its own."""
        if os.path.lexists(self._full(folder + b"/.git")):
            with closing(Listing(self._full(folder))) as inner:
                paths = [folder + b"/" + path for path in inner.below(b"")]
            self._hashes.warnings.extend(inner.warnings)
        else:
            paths = list(walk(self._listing.root, folder, everything=True))
        if paths in ([], [folder]):
            if self._hashes.readable(folder):
                self.entries[folder] = entry
        else:
            self.take(paths, anyhow=anyhow)

    def _targets(self, path: bytes) -> Iterator[bytes]:
        """Yield the paths, from the root, that a link points to or a script mentions."""
        here = path.rpartition(b"/")[0]
        entry = self.entries[path]
        if entry.kind == "l":
            yield normpath(here + b"/" + entry.content) if here else normpath(entry.content)
        elif here and not path.startswith(b"cvlization/"):  # the root's own files know everybody
            # A script may use the path as it lies, or from the example's folder, where it starts.
            home = _example_of(self._listing, path) or self.example
            for mention in self._hashes.mentions.get(path, b"").split():
                if mention.startswith(b"/"):
                    yield normpath(mention[1:])
                else:
                    yield normpath(here + b"/" + mention)
                    yield normpath(home + b"/" + mention)

    def _listed(self, target: bytes) -> list[bytes]:
        """Return what travels because `target` is reached for: all of the example it lies in."""
        outside = target in {b".", b".."} or target.startswith((b"../", b"/"))
        if outside or target in self._above or target.startswith(self.example + b"/"):
            return []
        if home := _example_of(self._listing, target):
            if home != target and home in self._reached:
                return []
            self._reached.add(home)
            return self._listing.below(home)
        return [target] if self._listing.has(target) else self._listing.below(target)


def _basis(listing: Listing, example: bytes) -> Iterator[bytes]:
    """Yield what travels for every example: points 1 to 3."""
    if not listing.below(example):
        listing.walk(example)  # git ignores this folder, but the user runs it
    yield from listing.below(example)
    if not example:
        return
    yield from listing.below(b"cvlization")
    for parent in parents(example):
        yield from _beside(listing, parent)
    yield from (path for path in listing.paths if b"/" not in path)


def _beside(listing: Listing, folder: bytes) -> Iterator[bytes]:
    """Yield the files in `folder`, and those in its folders that hold no example."""
    inside = listing.below(folder)
    skip = len(folder) + 1
    busy = {path[skip:].partition(b"/")[0] for path in inside if path.endswith(b"/example.yaml")}
    yield from (path for path in inside if path[skip:].partition(b"/")[0] not in busy)


def _example_of(listing: Listing, path: bytes) -> bytes:
    """Return the folder of the example that `path` lies in, or b""."""
    for folder in (path, *parents(path)):
        if listing.has(folder + b"/example.yaml"):
            return folder
    return b""


def _relative(root: Path, folders: Iterable[Path]) -> Iterator[bytes]:
    """Yield those folders that lie below `root`, as prefixes of the paths in them."""
    base = root.resolve()
    for folder in folders:
        whole = folder.resolve()
        if whole != base and whole.is_relative_to(base):
            yield os.fsencode(whole.relative_to(base)) + b"/"


def _rules(root: bytes, example: bytes) -> list[Rule]:
    """Return each `.cvlignore` that counts: where it lies, and what matches paths from there."""
    rules = []
    with Folders(root) as folders:
        for folder in {b"", example, *parents(example)}:
            prefix = folder + b"/" if folder else b""
            text = _ignore_file(folders, prefix + b".cvlignore")
            if text:
                rules.append((prefix, _matcher(text)))
    return rules


def _ignore_file(folders: Folders, path: bytes) -> bytes:
    """Return what a `.cvlignore` says, b"" without one. Raises `UsageError` if it is no file."""
    try:
        text = folders.read(path, MOST + 1)
        if len(text) > MOST:
            raise OSError(EFBIG, os.strerror(EFBIG))
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(
            f"cannot read {os.fsdecode(path)}: {error.strerror}",
            "it has to be a plain file, and no link, for what it names must stay here",
        ) from error
    return text


def _matches(rules: list[Rule], path: bytes) -> bool:
    return any(
        path.startswith(prefix) and matches(os.fsdecode(path[len(prefix) :]))
        for prefix, matches in rules
    )


def _matcher(text: bytes) -> Callable[[str], bool]:
    """Return what matches as gitignore does, in a time that grows with a path as it should.

    Raises `UsageError` for a line that is no pattern, or has more than `STARS` times `/**/`, which
    would take too long to look for.
    """
    from pathspec import GitIgnoreSpec

    try:
        spec = GitIgnoreSpec.from_lines(os.fsdecode(text.replace(b"\r\n", b"\n")).split("\n"))
    except ValueError as error:
        raise UsageError(f"cannot read .cvlignore: {error}") from error
    for pattern in spec.patterns:
        if pattern.regex is None:
            continue
        source = pattern.regex.pattern
        if source.count("(?:/.+)?") > STARS:
            raise UsageError(f"a line of .cvlignore has more than {STARS} times /**/")
        pattern.regex = re.compile(STAR.sub(r"(?>[^/]*?\1)", source))
    return spec.match_file


def _leads_out(path: bytes, target: bytes) -> bool:
    """Return whether a link at `path`, from the root, leads out of the repository."""
    here = path.rpartition(b"/")[0]
    inner = normpath(here + b"/" + target if here else target)
    return target.startswith(b"/") or inner == b".." or inner.startswith(b"../")
