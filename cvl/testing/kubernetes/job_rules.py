"""What jobs may be, beyond the document."""

from __future__ import annotations

from collections.abc import Iterator

from cvl.testing.kubernetes.names import LABEL_LIMIT, Cause, labels, wrong
from cvl.testing.kubernetes.objects import Obj, at, name_of
from cvl.testing.kubernetes.pod_rules import pod_spec

FROZEN = ("completionMode", "completions", "selector", "podFailurePolicy")
NOT_HERE = ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy", "manualSelector")
"""What this stand-in does not do: it says so at once."""


def job(obj: Obj) -> Iterator[Cause]:
    """Yield what is wrong with a job."""
    spec = obj["spec"]
    for name in NOT_HERE:
        if name in spec:
            yield wrong(f"spec.{name}", spec[name], "not supported by this stand-in")
    if spec["template"]["spec"]["restartPolicy"] == "Always":  # what a pod has that says nothing
        field = "spec.template.spec.restartPolicy"
        yield field, 'Required value: valid values: "OnFailure", "Never"'
    longest = f"{name_of(obj)}-{max(spec['completions'] - 1, 0)}"
    if spec["completionMode"] == "Indexed" and len(longest) > LABEL_LIMIT:
        why = f"must be no more than {LABEL_LIMIT} characters"
        told = f"will not able to create pod with invalid DNS label: [{why}]"
        yield wrong("metadata.name", longest, told)
    yield from labels("spec.template.labels", at(spec, "template", "metadata", "labels") or {})
    yield from pod_spec("spec.template.spec", spec["template"]["spec"])


def job_change(obj: Obj, old: Obj) -> Iterator[Cause]:
    """What runs must not change; the template may while the job is suspended and unstarted."""
    was, now = old["spec"], obj["spec"]
    started = not was.get("suspend") or at(old, "status", "startTime")
    for name in (*FROZEN, "template") if started else FROZEN:
        if was.get(name) != now.get(name):
            yield wrong(f"spec.{name}", now.get(name), "field is immutable")
