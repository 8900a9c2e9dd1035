"""An example that only the host knows: its own cvl says what runs, and it runs there in place."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

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
    as `parsed`, `HostError`, and as `scope`, which hears of a host that is silent.
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
    return parsed(answer, where, args)


def _asked(far: FarSide, question: Mapping[str, object], scope: Scope | None) -> bytes | None:
    """Return the answer, None if there is nobody who can answer."""
    nonce = secrets.token_hex(8)
    data = json.dumps({**question, "nonce": nonce}).encode()
    printed = far.output(ASKING, data, LIMIT, scope)
    _, mark, answer = printed.partition(f"cvl:{nonce}\n".encode())
    return answer if mark else None


def parsed(said: bytes, where: str, args: Sequence[str] = ()) -> JobSpec:
    """Read what `cvl _resolve` answered, checked in every detail.

    Raises `Unreadable`; `NotFound` or `UsageError` where it answers that there is no such job.
    """
    try:
        return _job(json.loads(said), args)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        start = shown(said[:LIMIT_SHOWN].decode("utf-8", "replace"))
        raise Unreadable(
            f"what cvl on {where} answers cannot be read: {start!r}",
            "is it another version? `--setup-cvl` puts this one there",
        ) from error


def _job(answer: dict[str, Any], args: Sequence[str]) -> JobSpec:
    """Return a job made of nothing but what it may hold. Raises as `parsed`, and catches."""
    _must(isinstance(answer, dict))
    folder = _line(answer["folder"]) if "folder" in answer else ""
    if "error" in answer:  # of an example that is there the folder is known
        said, hint = map(_sentence, _list(answer["error"]))
        raise (UsageError if folder else NotFound)(said, hint)
    root, build = _line(answer["root"]), answer["build"]
    if build is not None:
        words, image = _list(build)
        build = Build(argv=tuple(map(_word, _list(words))), image=_line(image))
    env, argv = answer["env"], tuple(map(_word, _list(answer["argv"])))
    _must("folder" in answer and argv and isinstance(env, dict))
    _must(all(map(VARIABLE.fullmatch, env)))
    return JobSpec(
        run_id=new_run_id(folder or root),
        argv=argv,
        example=folder or PurePosixPath(root).name,
        preset=_line(answer["preset"]),
        args=tuple(args),
        env={name: _word(value) for name, value in env.items()},
        source=Source(root=Path(root), folder=folder),
        image=None if answer["image"] is None else _line(answer["image"]) or None,
        build=build,
        needs=_needs(answer["needs"]),
    )


def _needs(given: dict[str, Any]) -> Needs:
    _must(isinstance(given, dict) and given.keys() <= NEEDS.keys())
    archs = tuple(_word(each) for each in _list(given.get("archs", [])))
    for name, value in given.items():
        _must(type(value) in NEEDS[name] and (name == "archs" or 0 <= value <= MOST))
    return Needs(**{**given, "archs": archs} if archs else given)


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
