"""What a user's pod template may add to our pods: `--pod-template FILE`, a Pod or a PodTemplate.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-template-v1/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cvl.core import request_template
from cvl.core.errors import UsageError
from cvl.core.request_template import Merged, Rules, Template
from cvl.core.yaml_file import PAIRS, Form, Where, shown, wrong
from cvl.providers.kubernetes.client import Object
from cvl.providers.kubernetes.manifest import CONTAINER, Made

KINDS = frozenset({"", "Pod", "PodTemplate"})
HINT = "it holds a pod's `metadata` (labels, annotations) and `spec`, as a Pod or PodTemplate does"
JOBS = (
    *("backoffLimit", "backoffLimitPerIndex", "completionMode", "completions", "managedBy"),
    *("manualSelector", "maxFailedIndexes", "parallelism", "podFailurePolicy"),
    *("podReplacementPolicy", "selector", "successPolicy", "suspend", "template"),
    "ttlSecondsAfterFinished",
)
"""Fields of a Job's `spec`."""

TEXT = 'text: put "true" and numbers in quotes'
TEXTS: Form = {"*": TEXT}
WORDS: Form = [TEXT]
ITEMS: Form = [PAIRS]
CONTAINERS: Form = [
    {
        **dict.fromkeys(("name", "image"), TEXT),
        **dict.fromkeys(("args", "command"), WORDS),
        **dict.fromkeys(("envFrom", "ports", "volumeMounts"), ITEMS),
        "env": [{"value": TEXT, "valueFrom": PAIRS}],
        "resources": {"limits": PAIRS, "requests": PAIRS},
        "securityContext": PAIRS,
    }
]
FORM: Form = {
    "metadata": {"labels": TEXTS, "annotations": TEXTS},
    "spec": {
        **dict.fromkeys(("affinity", "dnsConfig", "securityContext"), PAIRS),
        **dict.fromkeys(("hostAliases", "imagePullSecrets", "tolerations"), ITEMS),
        **dict.fromkeys(("topologySpreadConstraints", "volumes"), ITEMS),
        **dict.fromkeys(("containers", "initContainers"), CONTAINERS),
        "nodeSelector": TEXTS,
    },
}
"""What is told at once, by name. Of a list where a map belongs the API server says where in its
own program it stumbled, after other things of the run have been made. Only what is written by hand
is known here; the rest the server judges."""

_FOUND = "what cvl makes is found again, and ended, by it"
_ONCE = "a job runs once"
_OUR_JOB = "it belongs to the Job, which is cvl's"
_DEADLINE = "--timeout sets it: it is the deadline that the cluster itself keeps"
_STOP = "--grace sets how a job is stopped"
_NODES = "the nodes of a run find each other by it"
_OWN = ("spec", "containers", f"[{CONTAINER}]")

KEPT: Mapping[Where, str] = {
    **dict.fromkeys(
        [
            ("metadata", "name"),
            ("metadata", "generateName"),
            ("metadata", "labels", "cvl.*"),
            ("metadata", "labels", "app.kubernetes.io/managed-by"),
            ("metadata", "labels", "batch.kubernetes.io/*"),
            ("metadata", "labels", "controller-uid"),
            ("metadata", "labels", "job-name"),
            ("metadata", "annotations", "cvl.*"),
            ("metadata", "annotations", "batch.kubernetes.io/*"),
        ],
        _FOUND,
    ),
    ("metadata", "namespace"): "--namespace says where",
    ("metadata", "ownerReferences"): "the Job owns the pods: they go when it goes",
    ("metadata", "finalizers"): "with one, a pod might never go",
    ("spec", "restartPolicy"): _ONCE,
    (*_OWN, "restartPolicy"): _ONCE,
    (*_OWN, "restartPolicyRules"): _ONCE,
    ("spec", "activeDeadlineSeconds"): _DEADLINE,
    ("spec", "terminationGracePeriodSeconds"): _STOP,
    (*_OWN, "lifecycle"): _STOP,
    (*_OWN, "env", "[CVL_*]"): "cvl sets these itself",
    ("spec", "hostname"): _NODES,
    ("spec", "subdomain"): _NODES,
    **{("spec", name): _OUR_JOB for name in JOBS},
}
RULES = Rules(
    kept=MappingProxyType(KEPT),
    keys=MappingProxyType(
        {
            "containers": "name",
            "initContainers": "name",
            "env": "name",
            "imagePullSecrets": "name",
            "tolerations": "",
            "volumeMounts": "mountPath",
            "volumes": "name",
        }
    ),
    whole=frozenset({"env", "volumeMounts", "volumes"}),
)


def read(path: Path) -> Template:
    """Return the `metadata` and `spec` of a pod. Raises `UsageError`, with the file's path."""
    document = request_template.read(path)
    kind = str(document.data.get("kind", ""))
    if kind not in KINDS:
        raise UsageError(f"{path}: kind {kind} is no pod: give what is below spec.template", HINT)
    heads = {"kind", "apiVersion"}
    data = {key: each for key, each in document.data.items() if key not in heads and each != {}}
    for words in wrong(data, {"template": FORM} if kind == "PodTemplate" else FORM):
        raise UsageError(f"{path}: {words}", HINT)
    if kind == "PodTemplate":
        _only(path, data, (), {"metadata", "template"})
        data = data.get("template", {})
    _only(path, data, (), {"metadata", "spec"})
    _only(path, data.get("metadata", {}), ("metadata",), {"labels", "annotations"})
    for each in data.get("spec", {}).get("containers", ()):
        _runnable(path, each)
    return replace(document, data=data)


def service_account(template: Template | None) -> str:
    """Return what the pod runs as, "" where the template does not say; one name of it is old."""
    spec = template.data.get("spec", {}) if template else {}
    return str(spec.get("serviceAccountName") or spec.get("serviceAccount") or "")


def of_container(template: Template | None, field: str) -> str:
    """Return one field of our own container, "" where the template does not say."""
    return str(_own(template).get(field, ""))


def limits(template: Template | None) -> Mapping[str, Any]:
    """Return the resources that the template gives our container."""
    resources = _own(template).get("resources") or {}
    return resources.get("limits") or {}


def under(job: Made, template: Template | None) -> Merged:
    """Return a Job of ours with the template below it. Raises `UsageError`."""
    pod = request_template.merged(job["spec"]["template"], template, RULES)
    return replace(pod, value={**job, "spec": {**job["spec"], "template": pod.value}})


def dropped(template: Template, sent: Object, seen: Object) -> list[str]:
    """Return the fields of the template that were in the Job as sent, and are not in it there."""
    asked, kept = (each["spec"]["template"] for each in (sent, seen))
    return list(request_template.dropped(template, asked, kept, RULES))


def _only(path: Path, data: Mapping[str, Any], where: Where, known: set[str]) -> None:
    for key in data:
        if key not in known and (*where, key) not in KEPT:  # those are told with their reason
            raise UsageError(f"{path}: {shown((*where, key))} is no field of a pod", HINT)


def _runnable(path: Path, container: Mapping[str, Any]) -> None:
    name = container.get("name", "")
    if name != CONTAINER and "image" not in container:
        raise UsageError(
            f"{path}: the container {name!r} has no image",
            f"cvl's own is called {CONTAINER!r}: a template adds to it by that name",
        )


def _own(template: Template | None) -> Mapping[str, Any]:
    containers = template.data.get("spec", {}).get("containers") or () if template else ()
    return next((each for each in containers if each.get("name") == CONTAINER), {})
