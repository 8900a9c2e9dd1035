"""The objects of one run: Secrets, for many nodes a Service, and the Job.

Kubernetes ends the Job itself, whatever becomes of us: `activeDeadlineSeconds` of the pod is the
timeout; that of the Job counts waiting too. https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cvl.core import tags
from cvl.core.errors import UsageError
from cvl.core.octets import octets, plain
from cvl.core.spec import JobSpec
from cvl.core.tags import Marks, name_of
from cvl.providers.kubernetes.job_options import DAY, JobOptions, hold, leave, lifetime, runtime
from cvl.run.nodes import NODE_RANK, variables

Made = dict[str, Any]

CONTAINER = "job"
RUN_LABEL, OWNER_LABEL = "cvl.run", "cvl.owner"
DEADLINE, CAUSE, EXAMPLE = "cvl.deadline", "cvl.cause", "cvl.example"
FIRSTS = "cvl.pods"
"""Annotations; the last names the pods that are the run's own, see `first_pods.py`."""
STAYS: Mapping[str, str] = MappingProxyType(
    {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
)
"""Annotations that keep autoscalers from moving a pod to another node: a job runs once."""
RANK = "batch.kubernetes.io/job-completion-index"
RANK_PATH = f"metadata.annotations['{RANK}']"
TTL = DAY
"""Seconds that an ended Job stays, with its log, where nobody has seen it gone."""
MOST_TEXT = 512 << 10
"""Bytes of arguments and variables: etcd takes objects of some 1.5 MB."""
MOST_SECRET = 1_000_000
"""Bytes of one Secret; Kubernetes takes 1 MiB."""
IN, OWN, WORKSPACE, REPO = "/cvl-in", "/cvl", "/workspace", "/cvlization_repo"
ENTRY, COLLECT = "entry.sh", "collect.sh"
AWAIT = 600
"""Seconds for each node that a pod waits for files that are sent to it, one after another; while
they come it waits on."""
CODE = "code-"
"""How the keys begin that hold an example's files."""
FIRST, FIRST_KEY = "/cvl-first", "pods"
"""Where a pod reads which pods are the run's own, and the key of the first Secret that says so."""
ONCE: Made = {
    "backoffLimit": 0,
    "podReplacementPolicy": "Failed",
    "podFailurePolicy": {
        "rules": [
            {
                "action": "FailJob",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
        ]
    },
}
"""What makes a Job start no second pod; clusters before 1.29 drop what they do not know of it."""


def labels_of(marks: Marks) -> dict[str, str]:
    """Return what objects are found by."""
    labels = {"app.kubernetes.io/managed-by": "cvl", RUN_LABEL: marks.run_id}
    return {**labels, OWNER_LABEL: marks.owner} if marks.owner else labels


def notes_of(marks: Marks) -> dict[str, str]:
    """Return the annotations that are only read: UTC epoch seconds."""
    return {DEADLINE: marks.tags[tags.DEADLINE]}


def marks_of(each: Mapping[str, Any]) -> Marks:
    """Return what an object's labels and annotations say."""
    labels, notes = each.get("labels") or {}, each.get("annotations") or {}
    owner, due = labels.get(OWNER_LABEL), notes.get(DEADLINE)
    return Marks.read({tags.RUN: labels.get(RUN_LABEL), tags.OWNER: owner, tags.DEADLINE: due})


def escaped(word: str) -> str:
    """Return a word of which Kubernetes makes just that word again.

    It replaces `$(NAME)` in commands, arguments and variables, and makes `$` of `$$`:
    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ (`args`).
    """
    return re.sub(r"\$(?=[$(])", "$$", word)


def objects(
    options: JobOptions, spec: JobSpec, marks: Marks, files: Mapping[str, bytes], *, shown: bool
) -> list[Made]:
    """Return all objects, in the order of their creation. Raises `UsageError`.

    `files` are the keys of the Secrets that hold the example, entry script included; `shown` puts
    `<redacted:NAME>` in place of each secret.
    """
    forwarded = [secret(options, marks, spec, shown=shown)] if spec.secrets else []
    code = file_secrets(options, marks, files)
    holders = {each["metadata"]["name"]: tuple(each["data"]) for each in code}
    services = [service(options, marks)] if spec.nodes > 1 else []
    return [*forwarded, *code, *services, job(options, spec, marks, holders)]


def secret(options: JobOptions, marks: Marks, spec: JobSpec, *, shown: bool) -> Made:
    """Return the Secret with what the user forwards."""
    texts = {name: _text(value, f"the value of {name}") for name, value in spec.secrets.items()}
    if shown:
        values = {"stringData": {name: f"<redacted:{name}>" for name in spec.secrets}}
    else:
        values = {"data": {name: _base64(octets(value)) for name, value in texts.items()}}
    return {**_head("v1", "Secret", _env_secret(marks.run_id), options, marks), **values}


def file_secrets(options: JobOptions, marks: Marks, files: Mapping[str, bytes]) -> list[Made]:
    """Return as many Secrets as the files need."""
    groups: list[dict[str, str]] = []
    room = 0
    for key, data in files.items():
        if len(data) > room:
            groups.append({})
            room = MOST_SECRET
        groups[-1][key] = _base64(data)
        room -= len(data)
    return [
        {**_head("v1", "Secret", file_secret(marks.run_id, number), options, marks), "data": group}
        for number, group in enumerate(groups)
    ]


def file_secret(run_id: str, number: int = 0) -> str:
    """Return the name of a Secret with files."""
    return f"{name_of(run_id)}-files-{number:02}"


def service(options: JobOptions, marks: Marks) -> Made:
    """Return the headless Service by which the pods of a Job find each other."""
    spec = {
        "clusterIP": "None",
        "selector": {RUN_LABEL: marks.run_id},
        "publishNotReadyAddresses": True,
    }
    return {**_head("v1", "Service", name_of(marks.run_id), options, marks), "spec": spec}


def job(
    options: JobOptions, spec: JobSpec, marks: Marks, holders: Mapping[str, Sequence[str]]
) -> Made:
    """Return the Job. Its own labels and annotations win over the user's.

    `holders` are the Secrets that hold files, each with its keys.
    """
    head = _head("batch/v1", "Job", name_of(spec.run_id), options, marks)
    head["metadata"]["labels"] = {**options.labels, **labels_of(marks)}
    notes = {**options.annotations, **notes_of(marks)}
    head["metadata"]["annotations"] = {**notes, EXAMPLE: spec.example} if spec.example else notes
    many = {"completionMode": "Indexed"} if spec.nodes > 1 else {}
    template = {
        "metadata": {
            "labels": {**options.labels, **labels_of(marks)},
            "annotations": {**STAYS, **options.annotations, **notes_of(marks)},
        },
        "spec": _pod(options, spec, holders),
    }
    return {
        **head,
        "spec": {
            **many,
            **ONCE,
            "completions": spec.nodes,
            "parallelism": spec.nodes,
            "activeDeadlineSeconds": lifetime(options, spec.limits),
            "ttlSecondsAfterFinished": TTL,
            "template": template,
        },
    }


def owned_by(uid: str, name: str) -> Made:
    """Return the change that gives an object to a Job: it goes when the Job goes."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
    return {"metadata": {"ownerReferences": [{**owner, "blockOwnerDeletion": False}]}}


def _pod(options: JobOptions, spec: JobSpec, holders: Mapping[str, Sequence[str]]) -> Made:
    volumes, inside = _volumes(options, holders)
    sent = not any(key.startswith(CODE) for keys in holders.values() for key in keys)
    pod: Made = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": runtime(spec.limits),
        "terminationGracePeriodSeconds": leave(spec),
        "enableServiceLinks": False,
        "containers": [{**_container(options, spec, sent=sent), "volumeMounts": inside}],
        "volumes": volumes,
    }
    if spec.nodes > 1:
        pod["subdomain"] = name_of(spec.run_id)
    if options.gpu:
        pod["tolerations"] = [
            {"key": options.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}
        ]
    if options.node_selector:
        pod["nodeSelector"] = dict(options.node_selector)
    if options.service_account:
        pod["serviceAccountName"] = options.service_account
    else:
        pod["automountServiceAccountToken"] = False  # who needs one names whose
    if options.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in options.pull_secrets]
    return pod


def _container(options: JobOptions, spec: JobSpec, *, sent: bool) -> Made:
    words = [escaped(_text(word, "an argument")) for word in spec.argv]
    if sum(map(len, words)) > MOST_TEXT:
        raise UsageError(
            f"the arguments are more than {MOST_TEXT >> 10} KiB", "let the script read a file"
        )
    container: Made = {
        "name": CONTAINER,
        "image": options.image,
        "imagePullPolicy": options.pull_policy,
        "env": _variables(spec, sent=sent),
        "resources": _resources(options),
    }
    if spec.source:
        container |= {"command": ["/bin/sh", f"{IN}/{ENTRY}"], "args": words}
    elif words:
        container |= {"command": words, **({"args": []} if options.template else {})}
    return container


def _variables(spec: JobSpec, *, sent: bool) -> list[Made]:
    """Return the container's environment; of several of one name the last one counts."""
    own: dict[str, Made] = {
        "CVL_RUN_ID": {"value": spec.run_id},
        "CVL_NO_DOCKER": {"value": "1"},
        "PYTHONUNBUFFERED": {"value": "1"},
        **_node(spec),
    }
    if spec.source:
        own["CVL_GRACE"] = {"value": f"{spec.limits.grace:g}"}
        own["CVL_HOLD"] = {"value": str(hold(spec.limits))}
        own["CVL_RUNTIME"] = {"value": str(runtime(spec.limits))}
        if sent:
            own["CVL_AWAIT"] = {"value": str(AWAIT * spec.nodes)}
    users = {name: {"value": escaped(_text(v, name))} for name, v in spec.env.items()}
    hidden = {
        name: {"valueFrom": {"secretKeyRef": {"name": _env_secret(spec.run_id), "key": name}}}
        for name in spec.secrets
    }
    every = {**own, **users, **hidden, **(_identity(spec) if spec.source else {})}
    return [{"name": name, **value} for name, value in every.items()]


def _identity(spec: JobSpec) -> dict[str, Made]:
    """Return what tells the entry script in which pod it runs; nobody may say otherwise."""
    pod = {"CVL_POD": _field("metadata.uid")}
    return {**pod, "CVL_NODE": _field(RANK_PATH)} if spec.nodes > 1 else pod


def _field(path: str) -> Made:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def _node(spec: JobSpec) -> dict[str, Made]:
    """Return what tells a node who it is among many."""
    name = name_of(spec.run_id)
    master = f"{name}-0.{name}" if spec.nodes > 1 else "localhost"
    values = variables(spec.nodes, master=master).items()
    rank = {NODE_RANK: _field(RANK_PATH)} if spec.nodes > 1 else {}
    return {**{name: {"value": value} for name, value in values}, **rank}


def _resources(options: JobOptions) -> Made:
    """Return what is asked for; a limit on CPU would only slow the job down."""
    amounts = {options.gpu_resource: str(options.gpu or "")}
    amounts |= {"memory": options.memory, "ephemeral-storage": options.disk}
    limits = {name: amount for name, amount in amounts.items() if amount}
    requests = {**limits, "cpu": options.cpu} if options.cpu else limits
    return {"requests": requests, "limits": limits} if requests else {}


def _volumes(
    options: JobOptions, holders: Mapping[str, Sequence[str]]
) -> tuple[list[Made], list[Made]]:
    """Return the pod's volumes, and where the container has them."""
    memory: Made = {"medium": "Memory", **({"sizeLimit": options.shm} if options.shm else {})}
    mounts: list[tuple[str, str, Made]] = [("shm", "/dev/shm", {"emptyDir": memory})]  # noqa: S108
    if holders:
        secrets = [{"name": name, "items": _items(*keys)} for name, keys in holders.items()]
        sources = [{"secret": secret} for secret in secrets]
        first = {"secretName": next(iter(holders)), "optional": True, "items": _items(FIRST_KEY)}
        mounts.append(("cvl-in", IN, {"projected": {"sources": sources, "defaultMode": 0o444}}))
        mounts.append(("cvl-first", FIRST, {"secret": {**first, "defaultMode": 0o444}}))
        mounts += [("cvl", OWN, {"emptyDir": {}}), ("workspace", WORKSPACE, {"emptyDir": {}})]
        mounts.append(("repo", REPO, {"emptyDir": {}}))
    for number, (path, claim) in enumerate(options.volumes.items()):
        mounts.append((f"volume-{number}", path, {"persistentVolumeClaim": {"claimName": claim}}))
    volumes = [{"name": name, **source} for name, _, source in mounts]
    return volumes, [{"name": name, "mountPath": path} for name, path, _ in mounts]


def _items(*keys: str) -> list[Made]:
    """Return a Secret's files; not what is written into it later, so these never change."""
    return [{"key": key, "path": key} for key in keys]


def _head(version: str, kind: str, name: str, options: JobOptions, marks: Marks) -> Made:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": options.namespace,
            "labels": labels_of(marks),
            "annotations": notes_of(marks),
        },
    }


def _env_secret(run_id: str) -> str:
    return f"{name_of(run_id)}-env"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _text(word: str, what: str) -> str:
    """Return a word that a JSON document can hold. Raises `UsageError`, without the word."""
    if "\0" in word:
        raise UsageError(f"{what} is no text: it holds a NUL byte", "Kubernetes takes text")
    return plain(word, what, "Kubernetes")
