"""What jobs may be, beyond the document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cvl.testing.kubernetes.names import LABEL_LIMIT, NOT_NEGATIVE, Cause, labels, wrong
from cvl.testing.kubernetes.objects import Obj, at, name_of
from cvl.testing.kubernetes.pod_rules import pod_spec

NUMBERS = (
    "parallelism",
    "completions",
    "backoffLimit",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
)
ONLY_INDEXED = ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy")
MODES = ("Indexed", "NonIndexed")


def job(obj: Obj) -> Iterator[Cause]:
    """Yield what is wrong with a job."""
    spec = obj["spec"]
    for name in NUMBERS:
        if (spec.get(name) or 0) < 0:
            yield wrong(f"spec.{name}", spec[name], NOT_NEGATIVE)
    yield from _restarts(spec)
    yield from _indexed(obj, spec)
    yield from labels("spec.template.labels", at(spec, "template", "metadata", "labels") or {})
    yield from pod_spec("spec.template.spec", spec["template"]["spec"])


def job_change(obj: Obj, old: Obj) -> Iterator[Cause]:
    """What runs must not change; the template may while the job is suspended and unstarted."""
    was, now = old["spec"], obj["spec"]
    frozen = ["completionMode", "selector", "podFailurePolicy", "backoffLimitPerIndex"]
    if not was.get("suspend") or at(old, "status", "startTime"):
        frozen.append("template")
    if was.get("completionMode") != "Indexed":
        frozen.append("completions")
    for name in frozen:
        if was.get(name) != now.get(name):
            yield wrong(f"spec.{name}", now.get(name), "field is immutable")


def _restarts(spec: Mapping[str, Any]) -> Iterator[Cause]:
    field = "spec.template.spec.restartPolicy"
    policy = at(spec, "template", "spec", "restartPolicy")
    if policy == "Always":  # which is also what a pod has that says nothing
        yield field, 'Required value: valid values: "OnFailure", "Never"'
    elif policy not in ("Never", "OnFailure"):
        yield field, f'Unsupported value: "{policy}": supported values: "OnFailure", "Never"'
    if "podFailurePolicy" in spec and policy != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        yield wrong(field, policy, why)


def _indexed(obj: Obj, spec: Mapping[str, Any]) -> Iterator[Cause]:
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in MODES:
        told = ", ".join(f'"{each}"' for each in MODES)
        yield "spec.completionMode", f'Unsupported value: "{mode}": supported values: {told}'
    if mode != "Indexed":
        for name in ONLY_INDEXED:
            if name in spec:
                yield wrong(f"spec.{name}", spec[name], "requires indexed completion mode")
    elif spec.get("completions") is None:
        yield "spec.completions", "Required value: when completion mode is Indexed"
    else:
        longest = f"{name_of(obj)}-{max(spec['completions'] - 1, 0)}"
        if len(longest) > LABEL_LIMIT:
            why = f"must be no more than {LABEL_LIMIT} characters"
            told = f"will not able to create pod with invalid DNS label: [{why}]"
            yield wrong("metadata.name", longest, told)
