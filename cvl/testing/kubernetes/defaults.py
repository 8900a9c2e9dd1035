"""What the server fills in where a client says nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from cvl.testing.kubernetes.objects import Obj, meta
from cvl.testing.kubernetes.resources import JOBS, NAMESPACES, PODS, SECRETS, SERVICES, Resource

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"


def fill(resource: Resource, obj: Obj) -> None:
    """Fill in an object, in place. Idempotent."""
    if resource in _FILLERS:
        _FILLERS[resource](obj)


def fill_job(job: Obj, uid: str) -> None:
    """Give a job the selector and the labels that bear its uid."""
    spec, name = job["spec"], meta(job)["name"]
    spec["selector"] = {"matchLabels": {CONTROLLER_UID: uid}}
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels |= {CONTROLLER_UID: uid, JOB_NAME: name, "controller-uid": uid, "job-name": name}
    if not meta(job).get("labels"):
        meta(job)["labels"] = dict(labels)


def _pod(pod: Obj) -> None:
    spec = pod["spec"]
    _pod_spec(spec)
    spec.setdefault("serviceAccountName", "default")
    pod.setdefault("status", {}).setdefault("phase", "Pending")


def _pod_spec(spec: Obj) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _container(container)


def _container(container: Obj) -> None:
    image = str(container.get("image", ""))
    _, _, tag = image.rpartition("/")[2].partition(":")
    latest = "@" not in image and tag in ("", "latest")
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    resources = container.setdefault("resources", {})
    for name, limit in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, limit)


def _job(job: Obj) -> None:
    spec = job["spec"]
    if "parallelism" not in spec and "completions" not in spec:
        spec["parallelism"] = spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("completions", spec["parallelism"])
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", policy)
    spec["template"].setdefault("metadata", {})
    _pod_spec(spec["template"]["spec"])
    job.setdefault("status", {})


def _service(service: Obj) -> None:
    service["spec"].setdefault("type", "ClusterIP")
    service.setdefault("status", {"loadBalancer": {}})


def _secret(secret: Obj) -> None:
    secret.setdefault("type", "Opaque")
    for key, value in (secret.pop("stringData", None) or {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def _namespace(namespace: Obj) -> None:
    namespace.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    namespace.setdefault("status", {}).setdefault("phase", "Active")


_FILLERS: Mapping[Resource, Callable[[Obj], None]] = {
    PODS: _pod,
    JOBS: _job,
    SERVICES: _service,
    SECRETS: _secret,
    NAMESPACES: _namespace,
}
