"""An example that only the host knows: its own cvl says what runs, and it runs there in place."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, cast

from cvl.core.errors import NotFound, NotReady, Unreadable, UsageError
from cvl.core.octets import octets
from cvl.core.scope import Scope
from cvl.core.spec import Build, JobSpec, Needs, Source, new_run_id
from cvl.host.record import shown
from cvl.host.rpc import FarSide

LIMIT = 60.0
ASKING = "cd && test ! -x .cvl/bin/cvl || .cvl/bin/cvl _resolve"
"""What is asked stands on its standard input."""


CONTROL = re.compile(r"[\x00-\x1f\x7f]")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NEEDS: Mapping[str, tuple[type, ...]] = {
    "gpus": (int,),
    "vram_gb": (int, float),
    "cpus": (int, float),
    "ram_gb": (int, float),
    "disk_gb": (int, float),
    "docker": (bool,),
    "archs": (list,),
}
MOST = 1e9
"""More than any machine has of anything; what is not a number is not below it."""
SENTENCE = 4000
"""Characters that an error may have."""
LIMIT_SHOWN = 400
"""Bytes of an answer that are looked at to show what it is."""


class Answered(TypedDict, total=False):
    """What `cvl _resolve` answers: all but `error`, or that, and the `folder` if it is known."""

    error: tuple[str, str]
    root: str
    folder: str
    preset: str
    argv: list[str]
    env: dict[str, str]
    image: str
    build: tuple[list[str], str] | None
    needs: dict[str, Any]


def job(
    far: FarSide,
    example: str,
    preset: str,
    args: Sequence[str],
    *,
    install: bool,
    scope: Scope | None = None,
) -> JobSpec:
    """Return the job that the host's own cvl makes of these words.

    `install` puts this cvl there first where there is none, or one that cannot answer. Raises
    what the host's cvl says, `HostError`, and as `scope`, which hears of a host that is silent.
    """
    question = {"example": example, "preset": preset, "args": list(args)}
    answer = _asked(far, question, scope)
    if answer is None and install:
        from cvl.host.install import install as put

        put(far, scope)
        answer = _asked(far, question, scope)
    where = far.transport.where
    if answer is None:
        raise NotReady(f"{example} is unknown here, and no cvl on {where} can be asked for it")
    if error := answer.get("error"):
        said, hint = error
        kind = UsageError if answer.get("folder") else NotFound
        raise kind(said, hint)
    return _job(answer, args)


def _job(answer: Answered, args: Sequence[str]) -> JobSpec:
    root, folder, build = answer["root"], answer["folder"], answer["build"]
    return JobSpec(
        run_id=new_run_id(folder or root),
        argv=tuple(answer["argv"]),
        example=folder or PurePosixPath(root).name,
        preset=answer["preset"],
        args=tuple(args),
        env=answer["env"],
        source=Source(root=Path(root), folder=folder),
        image=answer["image"] or None,
        build=Build(argv=tuple(build[0]), image=build[1]) if build else None,
        needs=Needs(**answer["needs"]),
    )


def _asked(far: FarSide, question: Mapping[str, object], scope: Scope | None) -> Answered | None:
    """Return the answer, None if there is nobody who can answer."""
    nonce = secrets.token_hex(8)
    data = json.dumps({**question, "nonce": nonce}).encode()
    printed = far.output(ASKING, data, LIMIT, scope)
    _, mark, answer = printed.partition(f"cvl:{nonce}\n".encode())
    return parsed(answer, far.transport.where) if mark else None


def parsed(said: bytes, where: str) -> Answered:
    """Read what `cvl _resolve` answered, checked in every detail. Raises `Unreadable`."""
    try:
        return _checked(json.loads(said))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        start = shown(said[:LIMIT_SHOWN].decode("utf-8", "replace"))
        raise Unreadable(
            f"what cvl on {where} answers cannot be read: {start!r}",
            "is it another version? `--setup-cvl` puts this one there",
        ) from error


def _checked(answer: dict[str, Any]) -> Answered:
    """Return the answer made of nothing but what it may hold. Raises as `parsed` catches."""
    _must(isinstance(answer, dict))
    checked: Answered = {"folder": _line(answer["folder"])} if "folder" in answer else {}
    if "error" in answer:
        said, hint = _list(answer["error"])
        checked["error"] = (_sentence(said), _sentence(hint))
        return checked
    build = answer["build"]
    if build is not None:
        argv, image = _list(build)
        build = ([_word(word) for word in _list(argv)], _line(image))
    env, argv = answer["env"], [_word(word) for word in _list(answer["argv"])]
    _must(isinstance(env, dict) and bool(argv) and all(map(VARIABLE.fullmatch, env)))
    return {
        "root": _line(answer["root"]),
        "folder": checked["folder"],
        "preset": _line(answer["preset"]),
        "argv": argv,
        "env": {name: _word(value) for name, value in env.items()},
        "image": "" if answer["image"] is None else _line(answer["image"]),
        "build": build,
        "needs": _needs(answer["needs"]),
    }


def _needs(given: dict[str, Any]) -> dict[str, Any]:
    _must(isinstance(given, dict) and given.keys() <= NEEDS.keys())
    archs = tuple(_word(each) for each in _list(given.get("archs", [])))
    for name, value in given.items():
        _must(type(value) in NEEDS[name] and (name == "archs" or 0 <= value <= MOST))
    return {**given, "archs": archs} if archs else given


def _word(value: object) -> str:
    """Return a text that an argument of a process can be."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    octets(value)
    return value


def _line(value: object) -> str:
    """Return a text that can stand in a header and a path."""
    _must(not CONTROL.search(text := _word(value)))
    return text


def _sentence(value: object) -> str:
    """Return a text for a person."""
    _must(len(text := _word(value)) <= SENTENCE)
    return text


def _list(value: object) -> list[object]:
    _must(isinstance(value, list))
    return cast("list[object]", value)


def _must(true: object) -> None:
    if not true:
        raise ValueError
