"""Jobs, Secrets and Services as things that must not outlive their run: made once, found by label.

A name is taken once in a namespace, so it is the token: `AlreadyExists` (409) after a lost reply
means that an earlier request made it, if it bears our label.

Sidecars run for ever, or ignore TERM, where their job is over. A pod's grace is as long as a job's
results may have to wait; nobody waits so long for a sidecar. It can be shortened for a pod only. So
its Job, which would make another, lets go of it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType

from cvl.core import replies
from cvl.core.errors import Denied, Missing, Rejected, Taken, Unreachable
from cvl.core.scope import Scope
from cvl.core.spec import Resource
from cvl.providers.kubernetes import check, pods
from cvl.providers.kubernetes.client import Client, Object, api_path
from cvl.providers.kubernetes.first_pods import pods_of_run
from cvl.providers.kubernetes.manifest import CONTAINER, RUN_LABEL, marks_of

JOB, SECRET, SERVICE, POD = "job", "secret", "service", "pod"
KINDS: Mapping[str, str] = MappingProxyType({JOB: "Job", SECRET: "Secret", SERVICE: "Service"})
"""What is acquired, and its kind over there. An orphaned pod is only found and ended."""
OVER_LIMIT = 3.0
"""Seconds that a job beside sidecars may take for its end once its results are collected."""
SIDECAR_GRACE = 1
"""Seconds that sidecars have to end."""
FORCED = 5.0
"""Seconds after the end of that in which a node may say that they have; old ones are deaf."""
USUAL, LOOK = 15.0, 0.25
"""Seconds that an ended Job's pods mostly take to go, and between two looks at that."""


def create(client: Client, body: Object) -> str:
    """Create an object and return its id; of what bears its name already, if it is of our run."""
    meta, kind = body["metadata"], body["kind"].lower()
    try:
        return ident(client.create(api_path(f"{kind}s", meta["namespace"]), body))
    except Taken:
        ours = meta["labels"][RUN_LABEL]
    resource = Resource(kind=kind, name=str(meta["name"]), run_id=ours)
    earlier = there(client, resource, str(meta["namespace"]))
    if earlier is None:
        raise Unreachable(f"{resource.name} is there and is not")
    if marks_of(earlier["metadata"]).run_id != ours:
        raise Rejected(f"{resource.name} is taken, by something that is not ours")
    return ident(earlier)


def ident(each: Object) -> str:
    """Return what names an object for ever: namespace, name, uid."""
    meta = each["metadata"]
    return f"{meta['namespace']}/{meta['name']}/{meta['uid']}"


def located(resource: Resource, namespace: str) -> tuple[str, str]:
    """Return a resource's path and uid; without an id it lies in `namespace`, any uid."""
    if not resource.id:
        return api_path(f"{resource.kind}s", namespace, resource.name), ""
    namespace, name, uid = resource.id.split("/")
    return api_path(f"{resource.kind}s", namespace, name), uid


def there(client: Client, resource: Resource, namespace: str) -> Object | None:
    """Return the object that bears a resource's name, None if there is none.

    Only Jobs may be asked for by name: of all else we need the right to list, and no other.
    """
    path, _ = located(resource, namespace)
    if resource.kind != JOB:
        collection, _, name = path.rpartition("/")
        return next(client.items(collection, fieldSelector=f"metadata.name={name}"), None)
    try:
        return client.get(path)
    except Missing:
        return None


def owned(client: Client, kind: str, namespaces: tuple[str, ...]) -> Iterator[Resource]:
    """Yield what bears our label, also what is ending: it is alive until it is no more."""
    for namespace in namespaces:
        uids = set()
        every = client.items(api_path(f"{kind}s", namespace), labelSelector=RUN_LABEL)
        for each in replies.read(kind, every, partial(_resource, kind)):
            uids.add(each.id.rpartition("/")[2])
            yield each
        if kind == JOB:
            yield from _outlived(client, namespace, uids)


def _outlived(client: Client, namespace: str, uids: set[str]) -> Iterator[Resource]:
    """Yield the Jobs that are no more and whose pods still are: gone they are not."""
    every = client.items(api_path("pods", namespace), labelSelector=RUN_LABEL)
    for each in replies.read(JOB, every, partial(_job_of, uids)):
        uids.add(each.id.rpartition("/")[2])
        yield each


def _job_of(uids: set[str], pod: Object) -> Resource | None:
    """Return the Job of a pod if it is none of `uids`."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner["kind"] == "Job" and owner["uid"] not in uids:
            meta = {**pod["metadata"], "name": owner["name"], "uid": owner["uid"]}
            return _resource(JOB, {"metadata": meta})
    return None


def readable(client: Client, own: Sequence[str]) -> tuple[str, ...]:
    """Return the namespaces that we may list, `own` among them: ("",) for all at once."""
    with suppress(Denied):
        client.get(api_path("jobs"), limit="1")
        return ("",)
    try:
        names = [str(each["metadata"]["name"]) for each in client.items(api_path("namespaces"))]
    except Denied:
        return tuple(_listable(client, own)) or tuple(own[:1])
    return tuple(_listable(client, [*own, *names]))


def destroy(client: Client, resource: Resource, namespace: str) -> None:
    """Delete an object and what belongs to it; the very one, and not a namesake.

    Foreground: the Job is there until its pods are gone, so that gone means gone. That takes
    seconds, in which it is looked for here: whoever looks for many things looks less often.
    """
    path, uid = located(resource, namespace)
    with suppress(Missing, Taken):
        if not _only_sidecars(client, resource, namespace):
            client.delete(path, uid)
        if resource.kind == JOB:
            _await(client, lambda: client.get(path)["metadata"]["uid"] != uid)
    if resource.kind == JOB:
        _end_orphans(client, resource, namespace)


def _only_sidecars(client: Client, resource: Resource, namespace: str) -> bool:
    """End a Job of which only sidecars are left, soon after its job is over."""
    if resource.kind != JOB:
        return False
    for _ in Scope(client.clock).attempts((LOOK,), limit=OVER_LIMIT):
        every = pods_of(client, resource, namespace)
        if not any(map(has_sidecars, every)):
            return False
        if _end_sidecars(client, *located(resource, namespace), every):
            _await(client, lambda: not pods_of(client, resource, namespace))
            return True
        if all(map(pods.over, every)):
            return False
    return False


def has_sidecars(pod: Object) -> bool:
    """Return whether a pod has containers that go on beside its job."""
    spec = pod["spec"]
    beside = [each for each in spec["containers"] if each["name"] != CONTAINER]
    inits = spec.get("initContainers") or ()
    return bool(beside) or any(each.get("restartPolicy") == "Always" for each in inits)


def _end_sidecars(client: Client, job: str, uid: str, every: Sequence[Object]) -> bool:
    """End pods of a Job that only have sidecars left; return whether they are all it has.

    Where we may not delete pods, their grace is waited for.
    """
    done = [pod for pod in every if has_sidecars(pod) and pods.over(pod) and _runs(pod)]
    alive = [pod for pod in every if not pods.over(pod)]
    namespace = str(every[0]["metadata"]["namespace"]) if every else ""
    if not done or alive or not check.may(client, namespace, ("", "pods", "delete")):
        return False
    with suppress(Missing, Taken):
        if not client.get(job)["metadata"].get("deletionTimestamp"):
            client.delete(job, uid, "Orphan")
    for pod in done:
        uid, due = str(pod["metadata"]["uid"]), pod["metadata"].get("deletionTimestamp")
        forced = due and pods.epoch(str(due)) + FORCED < client.now()
        with suppress(Missing, Taken):
            client.delete(pods.path(pod), uid, grace=0 if forced else SIDECAR_GRACE)
    return True


def _runs(pod: Object) -> bool:
    status = pod.get("status", {})
    every = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return any("running" in (each.get("state") or {}) for each in every)


def _await(client: Client, gone: Callable[[], bool]) -> None:
    """Wait until it is `gone`, for as long as that mostly takes."""
    for _ in Scope(client.clock).attempts((LOOK,), limit=USUAL):
        if gone():
            return


def pods_of(client: Client, resource: Resource, namespace: str) -> list[Object]:
    """Return the pods of a run's Job that are still there, whether or not the Job is."""
    return pods_of_run(client, resource.id.partition("/")[0] or namespace, resource.run_id)


def _end_orphans(client: Client, job: Resource, namespace: str) -> None:
    """Delete pods whose Job is gone and that nobody ends: somebody has deleted it so."""
    for pod in pods_of(client, job, namespace):
        meta = pod["metadata"]
        if not (meta.get("ownerReferences") or meta.get("deletionTimestamp")):
            with suppress(Missing, Taken):
                client.delete(pods.path(pod), str(meta["uid"]))


def _listable(client: Client, names: Iterable[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        with suppress(Denied, Missing):
            client.get(api_path("jobs", name), limit="1")
            yield name


def _resource(kind: str, each: Object) -> Resource | None:
    meta = each["metadata"]
    marks = marks_of(meta)
    if not marks.run_id or (kind == POD and meta.get("ownerReferences")):
        return None  # a pod that has an owner goes with it
    note = "ending" if meta.get("deletionTimestamp") else ""
    return marks.on(Resource(kind=kind, name=str(meta["name"]), id=ident(each), note=note))
