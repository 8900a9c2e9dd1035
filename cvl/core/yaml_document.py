"""One example.yaml as plain JSON-able data, with the line of each key and of each mistake.

Scalars keep the text that stands in the file, so that `name: 007`, `env: {DEBUG: on}` and
`args: [1e-5]` mean what they say. Null is None; numbers and truth values are read only where
they are meant, below `resources` and `hardware`, as YAML 1.1 has them.

It reads events rather than nodes: the C composer of PyYAML 6.0 overflows the stack, and takes the
process with it, on some ten thousand open brackets. This module imports yaml: import it on use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

Keys = tuple[str, ...]
Note = tuple[int, str]
TYPED = frozenset({"resources", "hardware"})
MAX_DEPTH = 40
MAX_VALUES = 20_000
"""Largest in use: some 200 values, 5 deep. More is a mistake, or aliases of aliases of aliases."""
MAX_TEXT = 1 << 20
"""Characters that all values have together, each alias with all that it stands for."""
EMPTY = "the file is empty"
MAX_NOTES = 20
"""Mistakes that are told of one file."""
LONGEST_NUMBER = 100
"""Characters: more are no number that anybody means, and take the square of them to read."""
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file says. `data` is None if it cannot be used; `notes` say why, line and text."""

    data: Mapping[str, object] | None = None
    lines: Mapping[Keys, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def parse(
    raw: bytes, *, values: int = MAX_VALUES, text: int = MAX_TEXT, typed: bool = False
) -> Document:
    """Read the bytes of one file. Whatever is wrong with them becomes a note: nothing is raised.

    `values` and `text`, in characters: how much there may be in it. `typed`: numbers and truth
    values are meant everywhere.
    """
    try:
        read = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _broken(raw.count(b"\n", 0, error.start) + 1, "this is not UTF-8")
    events = yaml.parse(read, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    reader = _Reader(events=events, values=values, text=text, typed=typed)
    try:
        data = _document(reader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # What is missing at the end of the file is reported on a line after it.
        line = min(mark.line + 1, len(read.splitlines()) or 1) if mark else 1
        return _broken(line, error.problem or "this is not YAML")
    except yaml.reader.ReaderError as error:
        refused = yaml.reader.Reader.NON_PRINTABLE.search(read)
        before = refused.start() if refused else 0
        return _broken(read.count("\n", 0, before) + 1, str(error.reason))
    return Document(data=data, lines=reader.lines, notes=tuple(_some(reader.notes)))


@dataclass(slots=True, kw_only=True)
class _Reader:
    """How far we are, and how much there may still be.

    An anchor knows how many values it stands for, and how much text.
    """

    events: Iterator[Event]
    values: int
    text: int
    typed: bool
    anchors: dict[str, tuple[object, int, int]] = field(default_factory=dict)
    lines: dict[Keys, int] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def _document(reader: _Reader) -> dict[str, object]:
    """Read all events. Raises `yaml.MarkedYAMLError`, also where a rule of ours is broken."""
    next(reader.events)
    if not isinstance(start := next(reader.events), DocumentStartEvent):
        raise _refused(start, EMPTY)
    start = next(reader.events)
    data = _value(reader, start, ())
    next(reader.events)
    if isinstance(more := next(reader.events), DocumentStartEvent):
        raise _refused(more, "there is more than one document in this file")
    if isinstance(data, dict):
        return data
    raise _refused(start, EMPTY if data is None else "the file holds no `key: value` pairs")


def _value(reader: _Reader, event: Event, keys: Keys) -> object:
    values, text = reader.values, reader.text
    reader.values -= 1
    if reader.values < 0 or text < 0 or len(keys) > MAX_DEPTH:
        raise _refused(event, "there is too much in this file, or it is nested too deeply")
    if isinstance(event, AliasEvent):
        return _alias(reader, event)
    value = _plain(reader, event, keys)
    if isinstance(event, ScalarEvent | CollectionStartEvent) and event.anchor:
        reader.anchors[event.anchor] = (value, values - reader.values, text - reader.text)
    return value


def _alias(reader: _Reader, event: AliasEvent) -> object:
    if event.anchor not in reader.anchors:
        raise _refused(event, f"*{event.anchor} stands before its &{event.anchor} is over")
    value, values, text = reader.anchors[event.anchor]
    reader.values -= values
    reader.text -= text
    return value


def _plain(reader: _Reader, event: Event, keys: Keys) -> object:
    if isinstance(event, MappingStartEvent):
        return _mapping(reader, keys)
    if isinstance(event, ScalarEvent):
        reader.text -= len(event.value)
        if reader.typed or (keys and keys[0] in TYPED):
            return _typed(event)
        return None if event.implicit[0] and event.value in _NULLS else event.value
    items: list[object] = []
    while not isinstance(item := next(reader.events), SequenceEndEvent):
        items.append(_value(reader, item, (*keys, str(len(items)))))
    return items


def _mapping(reader: _Reader, keys: Keys) -> dict[str, object]:
    said: dict[str, object] = {}
    merged: dict[str, object] = {}
    while not isinstance(event := next(reader.events), MappingEndEvent):
        line = _line(event)
        if isinstance(event, ScalarEvent):
            key = event.value
            reader.text -= len(key)
        else:
            _value(reader, event, keys)
            reader.notes.append((line, "a key that is no plain word is left out"))
            key = ""
        path = (*keys, key)
        value = _value(reader, next(reader.events), path)
        if key == "<<":
            merged = _merge(value) | merged
            continue
        if key in said:
            reader.notes.append((line, f"{key!r} is given twice: the last one counts"))
        said[key] = value
        reader.lines[path] = line
    return merged | said


def _merge(value: object) -> dict[str, object]:
    result: dict[str, object] = {}
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, dict):
            result = part | result
    return result


def _typed(event: ScalarEvent) -> object:
    """Return a scalar as YAML 1.1 and PyYAML read it: None, a truth value, a number, or its text.

    0444 is octal. A date, and a number that JSON does not have, stays the text that it is.
    """
    text: str = event.value
    if not event.implicit[0] or len(text) > LONGEST_NUMBER:
        return text
    loader = yaml.SafeLoader("")
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    if tag.removeprefix("tag:yaml.org,2002:") not in {"null", "bool", "int", "float"}:
        return text
    try:
        value = loader.construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, LookupError):  # `0b_` is an int by its form
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


def _some(notes: list[Note]) -> list[Note]:
    """Return the first notes, and how many more there are."""
    more = notes[MAX_NOTES:]
    return [*notes[:MAX_NOTES], *([(more[0][0], f"{len(more)} more mistakes")] if more else [])]


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _refused(event: Event, why: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=why, problem_mark=event.start_mark)  # type: ignore[arg-type]


def _broken(line: int, text: str) -> Document:
    return Document(notes=((line, text),))
