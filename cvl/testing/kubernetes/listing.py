"""Lists: what a selector selects, page by page."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.objects import Obj, meta, name_of
from cvl.testing.kubernetes.selectors import by_fields, by_labels
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import World


def matching(call: Call) -> Callable[[Obj], bool]:
    """Return the test that a request's selectors are. Raises `ApiError` 400."""
    labels = by_labels(call.request.first("labelSelector"))
    fields = by_fields(call.target.resource, call.request.first("fieldSelector"))
    named = call.target.name
    return lambda obj: labels(obj) and fields(obj) and named in ("", name_of(obj))


def listed(world: World, call: Call) -> tuple[list[Obj], Obj]:
    """Return the objects a list shows, and its metadata. Raises `ApiError` 400, 410."""
    start, matches, limit = _start(world, call), matching(call), call.request.number("limit")
    with world.store.lock:
        found = world.store.listed(call.target.resource, call.target.namespace)
        version = world.store.version
    if world.strikes(call.operation, What.STALE):
        found = []
    found = [obj for obj in found if matches(obj)]
    if start:
        found = [obj for obj in found if _place(obj) > start]
    about: Obj = {"resourceVersion": str(version)}
    if limit is not None and 0 < limit < len(found):
        about["remainingItemCount"] = len(found) - limit
        found = found[:limit]
        token = json.dumps({"v": version, "start": _place(found[-1])})
        about["continue"] = base64.urlsafe_b64encode(token.encode()).decode()
    return found, about


def _place(obj: Obj) -> list[str]:
    return [meta(obj).get("namespace", ""), name_of(obj)]


def _start(world: World, call: Call) -> list[str]:
    """Return after which object a list goes on."""
    token = call.request.first("continue")
    if not token:
        return []
    try:
        told = json.loads(base64.urlsafe_b64decode(token))
        version, start = int(told["v"]), [str(part) for part in told["start"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError(400, f"continue key is not valid: {error}") from error
    if version < world.store.oldest:
        message = (
            "The provided continue parameter is too old to display a consistent list result. You"
            " can start a new list without the continue parameter."
        )
        raise ApiError(410, message, "Expired")
    return start
