"""Which example a word means: the look-up of names and paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from cvl.catalog.example import Example
from cvl.catalog.root import TYPES

if TYPE_CHECKING:
    from difflib import SequenceMatcher

SUGGESTIONS = 5
SHORTEST_PART = 3
_CLOSE = 0.6
"""Difflib's own default. "nope" is at 0.55 of "nanogpt", one letter wrong in six at 0.83."""


def match(query: str, examples: Iterable[Example]) -> tuple[Example, ...]:
    """Return those that `query` fits best: none, the one, or several that it fits equally well.

    First byte for byte, then with case and `-`/`_` folded: the whole path (with or without
    `examples/`), then a path's end or a name. Last, a part of a path or name that starts a word.
    """
    wanted, examples = tidy(query), tuple(examples)
    if not wanted:
        return ()
    for spelt in (str, fold):
        for fits in (_is_path, _is_end_or_name):
            if hits := _hits(wanted, examples, spelt, fits):
                return hits
    return _hits(wanted, examples, fold, _is_part)


def suggest(query: str, examples: Iterable[Example]) -> tuple[Example, ...]:
    """Return up to five examples whose folder, name or path looks like `query`, best first."""
    from difflib import SequenceMatcher

    wanted = fold(tidy(query))
    matcher = SequenceMatcher(b=wanted, autojunk=False)
    scored = [(_likeness(matcher, wanted, example), example) for example in examples]
    close = [pair for pair in scored if pair[0] >= _CLOSE]
    close.sort(key=lambda pair: (-pair[0], pair[1].path))
    return tuple(example for _, example in close[:SUGGESTIONS])


def tidy(query: str) -> str:
    """Drop what people leave on a path: `./`, doubled and trailing slashes."""
    return "/".join(part for part in query.strip().split("/") if part not in {"", "."})


def fold(text: str) -> str:
    """Return `text` without the difference between cases, and between `_` and `-`."""
    return text.casefold().replace("_", "-")


def _hits(
    wanted: str,
    examples: Sequence[Example],
    spelt: Callable[[str], str],
    fits: Callable[[str, str, str], bool],
) -> tuple[Example, ...]:
    word = spelt(wanted)
    return tuple(e for e in examples if fits(word, spelt(e.path), spelt(e.name)))


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


def _likeness(matcher: SequenceMatcher[str], wanted: str, example: Example) -> float:
    """Return 0 to 1. A part of a word, where a whole word was meant, counts as much as a typo."""
    path = fold(example.path.partition("/")[2])
    names = {fold(example.name), path.rpartition("/")[2]}
    if len(wanted) >= SHORTEST_PART and any(wanted in name for name in names):
        return 0.9
    best = 0.0
    for text in names | ({path} if "/" in wanted else set()):
        matcher.set_seq1(text)
        if matcher.real_quick_ratio() >= _CLOSE and matcher.quick_ratio() >= _CLOSE:
            best = max(best, matcher.ratio())
    return best
