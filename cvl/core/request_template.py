"""Templates: what a user adds to the request that a provider is sent, for which there is no option.

A file of YAML or JSON in the provider's own terms. What cvl sends is merged over it: maps key by
key, lists of named things thing by thing. Where both say something, cvl's counts and the other is
named; what the guarantee rests on cannot be in a template at all. Which fields that are, only the
provider knows (`Rules`). Only the person who runs may name a template: no project, no example.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass

LIMIT = 1 << 20
"""Bytes that a file may have; the largest request that a provider takes has 1.5 MB."""
SHOWN = 12
"""Fields that are named in one sentence."""

Tree = dict[str, Any]
Where = tuple[str, ...]
"""Where a field is: `("spec", "containers", "[job]", "image")`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What stands in a file: JSON's own types, and no nulls. `origin` is the file's path."""

    origin: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How templates of one kind of request are merged.

    `kept` maps fields that no template may set to the reason; a part that ends in `*` stands for
    all that begin so. `keys` maps lists to what tells their items apart, "" where all of both
    count.
    `whole` are lists of which an item is the template's or cvl's, never a mixture.
    """

    kept: Mapping[Where, str]
    keys: Mapping[str, str]
    whole: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A request with a template below it, and a sentence about what of the template is lost."""

    value: Tree
    warnings: tuple[str, ...] = ()


def read(path: Path) -> Template:
    """Return what stands in a file. Raises `UsageError`, with path and line."""
    from cvl.core.yaml_document import parse, typed

    try:
        with path.open("rb") as opened:
            raw = opened.read(LIMIT + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"the template {path} cannot be read: {why}") from error
    if len(raw) > LIMIT:
        raise UsageError(f"the template {path} has more than {LIMIT >> 10} KiB")
    document = parse(raw, scalar=lambda event, _where: typed(event))
    for line, text in document.notes:
        raise UsageError(f"{path}:{line}: {text}", "a template is YAML or JSON")
    return Template(origin=str(path), data=_without_nulls(document.data or {}))


def merged(ours: Mapping[str, Any], template: Template | None, rules: Rules) -> Merged:
    """Merge what cvl sends over a template. Raises `UsageError` for what no template may set."""
    if template is None:
        return Merged(value=dict(ours))
    for where, why in _forbidden(template.data, ours, rules, ()):
        raise UsageError(f"{template.origin}: {shown(where)} cannot be set in a template", why)
    merge = _Merge(template.origin, rules)
    return Merged(value=merge.maps(template.data, ours, ()), warnings=merge.warnings())


def dropped(
    template: object, sent: object, seen: object, rules: Rules, where: Where = ()
) -> Iterator[str]:
    """Yield the fields of a template that were in the request and are not in what came of it.

    Old servers leave out in silence what they do not know. Values are not compared: a server
    may write 4000m as 4. What is empty may be left out.
    """
    if isinstance(template, Mapping) and isinstance(sent, Mapping) and isinstance(seen, Mapping):
        for key, value in template.items():
            if value and key in sent and key not in seen:
                yield shown((*where, key))
            yield from dropped(value, sent.get(key), seen.get(key), rules, (*where, key))
    elif isinstance(template, list) and where and (key := rules.keys.get(where[-1])):
        sent_items, seen_items = (_by_name(each, key) for each in (sent, seen))
        for item in template:
            name = _name(item, key)
            place = (*where, f"[{name}]")
            yield from dropped(item, sent_items.get(name), seen_items.get(name), rules, place)


def shown(where: Where) -> str:
    """Return a field's place as people write it: `spec.containers[job].image`."""
    return ".".join(where).replace(".[", "[")


class _Merge:
    """One merge, and what of the template is lost by it."""

    def __init__(self, origin: str, rules: Rules) -> None:
        self._origin, self._rules = origin, rules
        self._overruled: list[str] = []

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence about the fields that do not count, if there are any."""
        if not (lost := self._overruled):
            return ()
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        names = ", ".join(lost[:SHOWN])
        return (f"{self._origin}: cvl sets these itself, they do not count: {names}{more}",)

    def maps(self, theirs: Mapping[str, Any], ours: Mapping[str, Any], where: Where) -> Tree:
        tree = dict(theirs)
        for key, value in ours.items():
            place = (*where, key)
            tree[key] = self._values(theirs[key], value, place) if key in theirs else value
        return tree

    def _values(self, theirs: object, ours: object, where: Where) -> object:
        if isinstance(ours, Mapping):
            if not isinstance(theirs, Mapping):
                raise self._wrong(where, "key: value pairs")
            return self.maps(theirs, ours, where)
        if isinstance(ours, list) and where[-1] in self._rules.keys:
            if not isinstance(theirs, list):
                raise self._wrong(where, "a list")
            return self._lists(theirs, ours, where)
        if theirs != ours:
            self._overruled.append(shown(where))
        return ours

    def _lists(self, theirs: list[Any], ours: list[Any], where: Where) -> list[Any]:
        key = self._rules.keys[where[-1]]
        if not key:
            return [*ours, *(item for item in theirs if item not in ours)]
        by_name: dict[str, Any] = {}
        for item in theirs:
            if (name := self._named(item, key, where)) in by_name:
                raise self._wrong((*where, f"[{name}]"), "there once, not twice")
            by_name[name] = item
        items = []
        for item in ours:
            name = _name(item, key)
            place = (*where, f"[{name}]")
            other = by_name.pop(name, None)
            items.append(item if other is None else self._items(other, item, place))
        return [*items, *by_name.values()]

    def _items(self, theirs: Tree, ours: Tree, where: Where) -> Tree:
        if where[-2] not in self._rules.whole:
            return self.maps(theirs, ours, where)
        if theirs != ours:
            self._overruled.append(shown(where))
        return ours

    def _named(self, item: object, key: str, where: Where) -> str:
        if name := _name(item, key):
            return name
        raise self._wrong(where, f"a list of things that each have a {key}")

    def _wrong(self, where: Where, what: str) -> UsageError:
        return UsageError(f"{self._origin}: {shown(where)} must be {what}")


def _forbidden(
    theirs: object, ours: object, rules: Rules, where: Where
) -> Iterator[tuple[Where, str]]:
    """Yield the fields that no template may set, but for those that say what cvl says too."""
    if theirs == ours:
        return
    for pattern, why in rules.kept.items():
        if len(pattern) == len(where) and all(map(_fits, where, pattern)):
            yield where, why
    if isinstance(theirs, Mapping):
        own = ours if isinstance(ours, Mapping) else {}
        for key, value in theirs.items():
            yield from _forbidden(value, own.get(key), rules, (*where, key))
    elif isinstance(theirs, list) and where and (key := rules.keys.get(where[-1])):
        items = _by_name(ours, key)
        for item in theirs:
            name = _name(item, key)
            yield from _forbidden(item, items.get(name), rules, (*where, f"[{name}]"))


def _fits(part: str, pattern: str) -> bool:
    part, pattern = part.strip("[]"), pattern.strip("[]")
    return part.startswith(pattern[:-1]) if pattern.endswith("*") else part == pattern


def _by_name(items: object, key: str) -> Mapping[str, object]:
    return {_name(each, key): each for each in items} if isinstance(items, list) else {}


def _name(item: object, key: str) -> str:
    """Return what tells an item of a list from the others, "" for nothing; of a path, its form."""
    name = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(name, str):
        return ""
    return posixpath.normpath(f"/{name.lstrip('/')}") if name.startswith("/") else name


def _without_nulls(value: Any) -> Any:
    """Return data without its nulls: to say null is to say nothing."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value if each is not None]
    return value
