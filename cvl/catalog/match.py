"""Which example a word means: the look-up of names and paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cvl.catalog.example import Example
from cvl.catalog.root import TYPES

SUGGESTIONS = 5
SHORTEST_PART = 3


def match(query: str, examples: Iterable[Example]) -> tuple[Example, ...]:
    """Return those that `query` fits best: none, the one, or several that it fits equally well.

    First byte for byte, then with case and `-`/`_` folded: the whole path (with or without
    `examples/`), then a path's end or a name. Last, a part of a path or name that starts a word.
    """
    wanted, examples = tidy(query), tuple(examples)

    def hits(
        spelt: Callable[[str], str], fits: Callable[[str, str, str], bool]
    ) -> tuple[Example, ...]:
        word = spelt(wanted)
        return tuple(each for each in examples if fits(word, spelt(each.path), spelt(each.name)))

    if not wanted:
        return ()
    exact = hits(str, _is_path) or hits(str, _is_end_or_name)
    folded = exact or hits(fold, _is_path) or hits(fold, _is_end_or_name)
    return folded or hits(fold, _is_part)


def suggest(query: str, examples: Iterable[Example]) -> tuple[Example, ...]:
    """Return up to five examples whose folder, name or path looks like `query`, best first.

    First come those of which it is a part, then those of which it is a misspelling.
    """
    from difflib import get_close_matches

    wanted = fold(tidy(query))
    by_word: dict[str, list[Example]] = {}
    for example in examples:
        path = fold(example.path.partition("/")[2])
        words = {fold(example.name), path.rpartition("/")[2], path if "/" in wanted else ""}
        for word in words - {""}:
            by_word.setdefault(word, []).append(example)
    wholes = [word for word in sorted(by_word) if len(wanted) >= SHORTEST_PART and wanted in word]
    near = [*wholes, *get_close_matches(wanted, by_word, SUGGESTIONS)]
    found = {example.path: example for word in near for example in by_word[word]}
    return tuple(found.values())[:SUGGESTIONS]


def tidy(query: str) -> str:
    """Drop what people leave on a path: `./`, doubled and trailing slashes."""
    return "/".join(part for part in query.strip().split("/") if part not in {"", "."})


def fold(text: str) -> str:
    """Return `text` without the difference between cases, and between `_` and `-`."""
    return text.casefold().replace("_", "-")


def _is_path(wanted: str, path: str, _: str) -> bool:
    return wanted in {path, path.partition("/")[2]}


def _is_end_or_name(wanted: str, path: str, name: str) -> bool:
    if wanted == name or path.endswith(f"/{wanted}"):
        return True
    top, _, rest = wanted.partition("/")
    return top in TYPES and bool(rest) and path.startswith(f"{top}/") and path.endswith(f"/{rest}")


def _is_part(wanted: str, path: str, name: str) -> bool:
    tail = path if "/" in wanted else path.partition("/")[2]
    return any(
        f"{border}{wanted}" in f"/{text}" for text in (tail, name) for border in ("/", "-", ".")
    )
