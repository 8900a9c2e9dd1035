"""An example that only the host knows: its own cvl says what runs, and it runs there in place."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from cvl.errors import NotFound, NotReady, UsageError
from cvl.remote.far import ANSWER, FarSide
from cvl.remote.stream import Stream
from cvl.spec import Build, JobSpec, Needs, Source, new_run_id

LIMIT = 60.0
ASKING = (
    "sh",
    "-c",
    "cd && test -x .cvl/bin/cvl || exit 127; exec .cvl/bin/cvl _resolve",
)
"""The same for every question: what is asked stands on its standard input."""


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


def job(far: FarSide, example: str, preset: str, args: Sequence[str], *, install: bool) -> JobSpec:
    """Return the job that the host's own cvl makes of these words.

    `install` puts this cvl there first where there is none, or one that cannot answer. Raises
    what the host's cvl says, and `HostError`.
    """
    question = {"example": example, "preset": preset, "args": list(args)}
    answer = _asked(far, question)
    if answer is None and install:
        from cvl.remote.bundle import install as put

        put(far)
        answer = _asked(far, question)
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
        example=folder,
        preset=answer["preset"],
        args=tuple(args),
        env=answer["env"],
        source=Source(root=Path(root), folder=folder),
        image=answer["image"] or None,
        build=Build(argv=tuple(build[0]), image=build[1]) if build else None,
        needs=Needs(**answer["needs"]),
    )


def _asked(far: FarSide, question: Mapping[str, object]) -> Answered | None:
    """Return the answer, None if there is nobody who can answer."""
    nonce = secrets.token_hex(8)
    with far.within(LIMIT) as scope:
        stream = Stream(far.transport.start(ASKING), nonce, far.transport)
        try:
            far.deliver(stream, json.dumps({**question, "nonce": nonce}).encode(), scope)
            said = b"".join(stream.payload(scope, most=ANSWER))
            if failure := stream.finish(LIMIT, scope):
                raise failure
        finally:
            stream.close()
    return cast("Answered", json.loads(said)) if said else None
