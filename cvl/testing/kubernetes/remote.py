"""What goes on to the node: a pod's logs, and commands in its containers."""

from __future__ import annotations

from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.nodes import ADDRESS
from cvl.testing.kubernetes.objects import Obj, at, name_of, nanoseconds_of
from cvl.testing.kubernetes.requests import Request, Stream
from cvl.testing.kubernetes.resources import PODS
from cvl.testing.kubernetes.statuses import ApiError, invalid
from cvl.testing.kubernetes.world import LogWish, World


def log(world: World, call: Call) -> Stream:
    """Return a container's log. Raises `ApiError` 400, 404, 422, 500."""
    pod = world.store.get(PODS, call.target.namespace, call.target.name)
    wish = _wish(call.request, pod)
    if world.kubelet is None or not at(pod, "spec", "nodeName"):
        return Stream(run=lambda _wire: None)  # so does the real server: 200, nothing
    _reach(world, pod, "containerLogs")
    return Stream(run=world.kubelet.log(pod, wish).send)


def connection(world: World, call: Call) -> Stream:
    """Return the connection to a command in a container. Raises `ApiError`."""
    from cvl.testing.kubernetes.executing import upgraded

    pod = world.store.get(PODS, call.target.namespace, call.target.name)
    container = _container(pod, call.request.first("container"))
    if world.kubelet is None or not at(pod, "spec", "nodeName"):
        raise ApiError(400, f"pod {name_of(pod)} does not have a host assigned")
    _reach(world, pod, "exec")
    if not call.request.query.get("command"):
        raise ApiError(400, "you must specify at least 1 command for the container")
    found = world.kubelet.connect(pod, container)
    return upgraded(world.kubelet.engine, call.request, found)


def _reach(world: World, pod: Obj, door: str) -> None:
    """Raise `ApiError` 500 if the pod's node does not answer."""
    if at(pod, "spec", "nodeName") in world.silent:
        address = f"{ADDRESS}:10250"
        why = f"dial tcp {address}: connect: connection refused"
        raise ApiError(500, f'Get "https://{address}/{door}/{name_of(pod)}": {why}')


def _wish(request: Request, pod: Obj) -> LogWish:
    tail, limit = request.number("tailLines"), request.number("limitBytes")
    if tail is not None and tail < 0:
        why = f"Invalid value: {tail}: must be greater than or equal to 0"
        raise invalid(PODS, name_of(pod), [("tailLines", why)])
    if limit is not None and limit < 1:
        why = f"Invalid value: {limit}: must be greater than 0"
        raise invalid(PODS, name_of(pod), [("limitBytes", why)])
    return LogWish(
        container=_container(pod, request.first("container")),
        follow=request.flag("follow"),
        timestamps=request.flag("timestamps"),
        since=_since(request.first("sinceTime")),
        tail=tail,
        limit=limit,
    )


def _since(text: str) -> int | None:
    """Return UTC epoch nanoseconds, cut to the second: so the real server passes it on."""
    try:
        return nanoseconds_of(text) // 10**9 * 10**9 if text else None
    except ValueError as error:
        raise ApiError(400, f'parsing time "{text}": {error}') from error


def _container(pod: Obj, asked: str) -> str:
    names, first = (
        [str(each["name"]) for each in pod["spec"].get(kind) or []]
        for kind in ("containers", "initContainers")
    )
    if asked in (*names, *first):
        return asked
    if asked:
        raise ApiError(400, f"container {asked} is not valid for pod {name_of(pod)}")
    if len(names) == 1:
        return names[0]
    told = f"a container name must be specified for pod {name_of(pod)}"
    raise ApiError(400, f"{told}, choose one of: [{' '.join(names)}]")
