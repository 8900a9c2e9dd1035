"""What goes on to the node: a pod's logs, and commands in its containers."""

from __future__ import annotations

from collections.abc import Sequence

from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.objects import Obj, at, name_of, nanoseconds_of
from cvl.testing.kubernetes.requests import Reply, Request, Stream
from cvl.testing.kubernetes.resources import PODS
from cvl.testing.kubernetes.statuses import ApiError, invalid
from cvl.testing.kubernetes.world import LogWish, World

TEXT = "text/plain"
BOTH = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"


def log(world: World, call: Call) -> Stream:
    """Return a container's log. Raises `ApiError` 400, 404, 422, 500."""
    pod = world.store.get(PODS, call.target.namespace, call.target.name)
    wish = _wish(call.request, pod)
    if world.nodes is None or not at(pod, "spec", "nodeName"):
        return Stream(run=lambda _wire: None, type=TEXT)  # so does the real server: 200, nothing
    reachable(world, pod, "containerLogs")
    nodes = world.nodes
    nodes.check_log(pod, wish)
    return Stream(run=lambda wire: nodes.log(pod, wish, wire), type=TEXT)


def connection(world: World, call: Call) -> Reply | Stream:
    """Return the connection to a command in a container, or to its own. Raises `ApiError`."""
    from cvl.testing.kubernetes.executing import upgraded

    pod = world.store.get(PODS, call.target.namespace, call.target.name)
    container = _container(pod, call.request.first("container"))
    if world.nodes is None or not at(pod, "spec", "nodeName"):
        raise ApiError(400, f"pod {name_of(pod)} does not have a host assigned")
    reachable(world, pod, call.target.subresource)
    attach = call.target.subresource == "attach"
    if not attach and not call.request.query.get("command"):
        raise ApiError(400, "you must specify at least 1 command for the container")
    found = world.nodes.connect(pod, container, attach=attach)
    return upgraded(world, call, found, attach=attach)


def reachable(world: World, pod: Obj, door: str) -> None:
    """Raise `ApiError` 500 if the pod's node does not answer."""
    node = at(pod, "spec", "nodeName")
    if node in world.silent:
        address = "198.18.9.1:10250"
        why = f"dial tcp {address}: connect: connection refused"
        raise ApiError(500, f'Get "https://{address}/{door}/{name_of(pod)}": {why}')


def _wish(request: Request, pod: Obj) -> LogWish:
    since, seconds = request.first("sinceTime"), request.number("sinceSeconds")
    tail, limit = request.number("tailLines"), request.number("limitBytes")
    wrong: list[tuple[str, str]] = []
    if since and seconds is not None:
        wrong.append(("sinceSeconds", BOTH))
    if seconds is not None and seconds < 1:
        wrong.append(("sinceSeconds", f"Invalid value: {seconds}: must be greater than 0"))
    if tail is not None and tail < 0:
        wrong.append(("tailLines", f"Invalid value: {tail}: must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        wrong.append(("limitBytes", f"Invalid value: {limit}: must be greater than 0"))
    if wrong:
        raise invalid(PODS, name_of(pod), wrong)
    return LogWish(
        container=_container(pod, request.first("container")),
        follow=request.flag("follow"),
        previous=request.flag("previous"),
        timestamps=request.flag("timestamps"),
        since=_since(since) if since else None,
        age=seconds,
        tail=tail,
        limit=limit,
        stream=request.first("stream") or "All",
    )


def _since(text: str) -> int:
    """Return UTC epoch nanoseconds, cut to the second: so the real server passes it on."""
    try:
        return nanoseconds_of(text) // 10**9 * 10**9
    except ValueError as error:
        raise ApiError(400, f'parsing time "{text}": {error}') from error


def _container(pod: Obj, asked: str) -> str:
    names = _names(pod["spec"].get("containers"))
    first = _names(pod["spec"].get("initContainers"))
    if asked:
        if asked not in (*names, *first):
            raise ApiError(400, f"container {asked} is not valid for pod {name_of(pod)}")
        return asked
    if len(names) == 1:
        return names[0]
    told = f"a container name must be specified for pod {name_of(pod)}"
    told += f", choose one of: [{' '.join(names)}]"
    if first:
        told += f" or one of the init containers: [{' '.join(first)}]"
    raise ApiError(400, told)


def _names(containers: Sequence[Obj] | None) -> list[str]:
    return [str(each["name"]) for each in containers or []]
