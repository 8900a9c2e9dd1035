"""Templates: what a user adds to the request that a provider is sent, for which there is no option.

A file of YAML or JSON in the provider's own terms. What cvl sends is merged over it: maps key by
key, lists of named things thing by thing. Where both say something, cvl's counts and the other is
named; what the guarantee rests on cannot be in a template at all. Which fields that are, only the
provider knows (`Rules`). Only the person who runs may name a template: no project, no example.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.yaml_file import Where, content, shown, without_nulls

LIMIT = 1 << 20
"""Bytes that a file may have; the largest request that a provider takes has 1.5 MB."""
SHOWN = 12
"""Fields that are named in one sentence."""


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

    value: dict[str, Any]
    warnings: tuple[str, ...] = ()


def read(path: Path) -> Template:
    """Return what stands in a file. Raises `UsageError`, with path and line."""
    from cvl.core.yaml_document import parse

    document = parse(content(path, LIMIT), typed=True)
    for line, text in document.notes:
        raise UsageError(f"{path}:{line}: {text}", "a template is YAML or JSON")
    return Template(origin=str(path), data=without_nulls(document.data or {}))


def merged(ours: Mapping[str, Any], template: Template | None, rules: Rules) -> Merged:
    """Merge what cvl sends over a template. Raises `UsageError` for what no template may set."""
    if template is None:
        return Merged(value=dict(ours))
    theirs, own = _named(template.data, rules), _named(ours, rules)
    for where, why in _forbidden(theirs, own, rules, ()):
        raise UsageError(f"{template.origin}: {shown(where)} cannot be set in a template", why)
    merge = _Merge(template.origin, rules)
    value = _listed(merge.values(theirs, own, ()))
    return Merged(value=value, warnings=merge.warnings())


def dropped(template: Template, sent: object, seen: object, rules: Rules) -> Iterator[str]:
    """Yield the fields of a template that were in the request and are not in what came of it.

    Old servers leave out in silence what they do not know. Values are not compared: a server
    may write 4000m as 4. What is empty may be left out.
    """
    given, asked, found = (_named(each, rules) for each in (template.data, sent, seen))
    yield from _dropped(given, asked, found, ())


class _Merge:
    """One merge, and what of the template is lost by it."""

    def __init__(self, origin: str, rules: Rules) -> None:
        self._origin, self._rules = origin, rules
        self._lost: list[str] = []

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence about the fields that do not count, if there are any."""
        if not (lost := self._lost):
            return ()
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        names = ", ".join(lost[:SHOWN])
        return (f"{self._origin}: cvl sets these itself, they do not count: {names}{more}",)

    def values(self, theirs: Any, ours: Any, where: Where) -> Any:
        """Return our value over theirs. Raises `UsageError` for another shape."""
        every = isinstance(ours, list) and where[-1] in self._rules.keys
        if (every or isinstance(ours, dict)) and not isinstance(theirs, type(ours)):
            named = isinstance(ours, _Items | list)
            raise _wrong(self._origin, where, "a list" if named else "key: value pairs")
        if every:
            return [*ours, *(each for each in theirs if each not in ours)]
        if isinstance(ours, _Items):
            self._look_at(theirs, where)
        if isinstance(ours, dict) and not self._rules.whole.intersection(where[-2:-1]):
            both = {
                key: self.values(theirs[key], each, (*where, key)) if key in theirs else each
                for key, each in ours.items()
            }
            more = {key: each for key, each in theirs.items() if key not in ours}
            return type(ours)({**both, **more})
        if theirs != ours:
            self._lost.append(shown(where))
        return ours

    def _look_at(self, items: _Items, where: Where) -> None:
        """Raise `UsageError` for an item that has no name, or another's."""
        for place in items:
            if place.startswith("[]"):
                key = self._rules.keys[where[-1]]
                raise _wrong(self._origin, where, f"a list of things that each have a {key}")
            if not place.endswith("]"):
                named = (*where, place.rpartition(" ")[0])
                raise _wrong(self._origin, named, "there once, not twice")


def _forbidden(
    theirs: object, ours: object, rules: Rules, where: Where
) -> Iterator[tuple[Where, str]]:
    """Yield the fields that no template may set, but for those that say what cvl says too."""
    if theirs == ours:
        return
    for pattern, why in rules.kept.items():
        if len(pattern) == len(where) and all(map(_fits, where, pattern)):
            yield where, why
    if isinstance(theirs, dict):
        own = ours if isinstance(ours, dict) else {}
        for key, value in theirs.items():
            yield from _forbidden(value, own.get(key), rules, (*where, key))


def _fits(part: str, pattern: str) -> bool:
    return fnmatchcase(part.strip("[]"), pattern.strip("[]"))


def _dropped(template: object, sent: object, seen: object, where: Where) -> Iterator[str]:
    if isinstance(template, dict) and isinstance(sent, dict) and isinstance(seen, dict):
        for key, value in template.items():
            if value and key in sent and key not in seen:
                yield shown((*where, key))
            yield from _dropped(value, sent.get(key), seen.get(key), (*where, key))


class _Items(dict[str, Any]):
    """A list whose items have names, by these: `[job]`, and `[job] 2` for another of that name."""


def _named(value: Any, rules: Rules, where: Where = ()) -> Any:
    """Return a value with its lists as `Rules.keys` tell their items apart."""
    if isinstance(value, Mapping):
        return {key: _named(each, rules, (*where, key)) for key, each in value.items()}
    key = rules.keys.get(where[-1]) if where and isinstance(value, list) else None
    if not key:
        return value
    items = _Items()
    for each in value:
        place = f"[{_name(each, key)}]"
        if place in items:
            place += f" {len(items)}"
        items[place] = _named(each, rules, (*where, place))
    return items


def _listed(value: Any) -> Any:
    """Return a value with its lists as they were."""
    if isinstance(value, _Items):
        return [_listed(each) for each in value.values()]
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    return value


def _name(item: object, key: str) -> str:
    """Return what tells an item of a list from the others, "" for nothing; of a path, its form."""
    name = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(name, str):
        return ""
    return posixpath.normpath(f"/{name.lstrip('/')}") if name.startswith("/") else name


def _wrong(origin: str, where: Where, what: str) -> UsageError:
    return UsageError(f"{origin}: {shown(where)} must be {what}")
