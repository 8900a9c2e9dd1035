"""The `Provider` for Jobs of a cluster: plan, check, create, find again, end."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from cvl.container.contents import contents_of
from cvl.core.errors import CvlError, Denied, Elsewhere, Rejected, UsageError
from cvl.core.interfaces import Leases
from cvl.core.paths import ledger_file
from cvl.core.retry import create
from cvl.core.scope import WARNING, Scope, Tell, silent
from cvl.core.spec import EMPTY, STOP_LIMIT, JobSpec, Plan, Quote, Resource
from cvl.core.tags import Marks, name_of
from cvl.core.units import elapsed, size, variable
from cvl.ledger import Ledger, RunState
from cvl.providers.kubernetes import check, files, first_pods, objects, results, template
from cvl.providers.kubernetes import identity as whose
from cvl.providers.kubernetes.api_errors import EXTRA
from cvl.providers.kubernetes.client import Client, Object, api_path
from cvl.providers.kubernetes.job import KubeJob
from cvl.providers.kubernetes.job_options import (
    AFTER_TERM,
    NO_LIMIT,
    JobOptions,
    ends,
    lifetime,
    runtime,
)
from cvl.providers.kubernetes.manifest import DEADLINE, Made, owned_by
from cvl.providers.kubernetes.manifest import objects as manifest
from cvl.providers.kubernetes.objects import JOB, KINDS, POD, SECRET, SERVICE

LISTING_LAG = variable("CVL_KUBE_SETTLE", 10)
"""Seconds after a request in which what it made may not be found yet: it may still be under way."""
LAYERS = (
    "Kubernetes itself, at activeDeadlineSeconds, whatever becomes of this machine",
    "cvl, on every ending, Ctrl-C, `cvl stop` and `cvl reap`, by deleting the Job and its pods",
    "`cvl reap` from any machine with access, past the deadline in the Job's annotations",
)
SENT = (
    "the example's files are {} packed, more than the {} that Secrets hold: they are sent into the "
    "pod once it runs, so this waits for that (with -d too)"
)
UNNOTED = (
    "it has no pod yet: until `cvl attach {}` has seen it, nobody keeps it from running a second "
    "time, should a queue suspend and resume it (before Kubernetes 1.26: should its pod be lost)"
)
SHOWN = 12
"""Fields of a template that are named in one sentence."""
QUOTE = (
    "a cluster has no price list; its nodes cost what they cost; Kubernetes ends it {} after it "
    "has a node, or {} after it was asked for"
)


class Kubernetes:
    """The `Provider`: Jobs in one namespace of one cluster."""

    name = "k8s"
    many_nodes = True
    guarded = False  # Kubernetes ends a Job at its deadline, whatever becomes of this machine
    stop_limit = STOP_LIMIT + AFTER_TERM
    listing_lag = LISTING_LAG
    unique = frozenset(KINDS)  # an id has the uid in it, which no other cluster has
    secrets: Mapping[str, str] = EMPTY  # the kubeconfig is found in any process

    def __init__(
        self,
        client: Client,
        options: JobOptions | None = None,
        namespace: str = "",
        identity: str = "",
    ) -> None:
        """`options` are needed to plan and launch. `identity` is the cluster meant, if known.

        Connects to nothing.
        """
        self._client, self._job_options = client, options
        self._namespace = options.namespace if options else namespace
        self._files: files.Packed | None = None
        self._asked: dict[str, Resource] = {}
        self._identity = identity

    def identity(self) -> str:
        self._identity = whose.identity_of(self._client)
        return self._identity

    def confirm(self, identity: str) -> None:
        whose.confirm(self._client, identity)

    def plan(self, spec: JobSpec) -> Plan:
        options = self._options
        count = f"{spec.nodes} x " if spec.nodes > 1 else ""
        made, warnings = self._objects(spec, shown=True)
        limits = elapsed(runtime(spec.limits)), elapsed(lifetime(options, spec.limits))
        return Plan(
            runner=self.name,
            where=f"{count}{options.image or 'a pod'} in namespace {options.namespace}",
            request=made,
            quote=Quote(note=QUOTE.format(*limits), rented=False),
            layers=LAYERS,
            warnings=(*self._warnings(spec), *warnings),
            format="yaml",
            obstacle=EXTRA.lacking(),
        )

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        options = self._options
        return {
            "run": spec.run_id,
            "job": name_of(spec.run_id),
            "namespace": options.namespace,
            "nodes": str(spec.nodes),
            "wrapped": "yes" if spec.source else "",
            "start_limit": f"{options.start_limit:g}",
            "grace": f"{math.ceil(spec.limits.grace)}",
            **self._client.address,
        }

    def launch(self, spec: JobSpec, leases: Leases, scope: Scope) -> KubeJob:
        options = self._options
        scope.tell("checking", f"what we may do in {options.namespace}")
        check.check(self._client, options, spec, scope)
        scope.checkpoint()
        made, _ = self._objects(spec, shown=False)
        resources = [self._acquired(each, spec, leases, scope) for each in made]
        self._give(resources)
        self._verify(spec, made[-1])
        if not first_pods.note(self._client, self.handle(spec), scope) and spec.detach:
            scope.tell("warning", UNNOTED.format(spec.run_id))
        if (packed := self._packed(spec)).archive:
            files.send(self._client, self.handle(spec), packed.archive, packed.size, scope)
        return KubeJob(self._client, self.handle(spec), scope.tell, answered=True)

    def attach(self, handle: Mapping[str, str], tell: Tell = silent) -> KubeJob:
        if tell is not silent:
            self._client.doors.hear = partial(tell, WARNING)
        return KubeJob(self._client, handle, tell)

    def owned(self, kind: str = "") -> Iterator[Resource]:
        """As the seam says; what we have ended and is no more comes once more, not alive."""
        namespaces = (self._namespace,) if self._namespace else self._readable()
        for each in [kind] if kind else [*KINDS, POD]:
            there = list(self._listed(each, namespaces, needed=bool(kind)))
            ids = {resource.id for resource in there}
            yield from there
            missing = [e for e in self._asked.values() if e.kind == each and e.id not in ids]
            if missing and self._is_here():
                yield from (replace(ended, alive=not self._gone(ended)) for ended in missing)

    def destroy(self, resource: Resource) -> None:
        if resource.kind == JOB:
            namespace = resource.id.partition("/")[0] or self._namespace
            results.let_go(self._client, namespace, resource.run_id)
        objects.destroy(self._client, resource, self._namespace)
        if resource.id:
            self._asked[resource.id] = resource

    def now(self) -> float:
        """Return UTC epoch seconds by the API server's clock."""
        self._client.get("/version")
        return self._client.now()

    def _is_here(self) -> bool:
        """Return whether this is the cluster that is meant: else its word of an end is none."""
        try:
            self.confirm(self._identity)
        except Elsewhere:
            return False
        return True

    def _listed(
        self, kind: str, namespaces: tuple[str, ...], *, needed: bool
    ) -> Iterator[Resource]:
        """Yield what is there of a kind; of what we may not list we have made nothing."""
        try:
            yield from objects.owned(self._client, kind, namespaces)
        except Denied:
            if needed or kind not in {SECRET, SERVICE}:
                raise

    def _gone(self, resource: Resource) -> bool:
        """Return whether the very object is no more, whatever a list says, nor what was its own."""
        _, uid = objects.located(resource, self._namespace)
        namesake = objects.there(self._client, resource, self._namespace)
        if namesake and namesake["metadata"]["uid"] == uid:
            return False
        lives = resource.kind == JOB and objects.pods_of(self._client, resource, self._namespace)
        return not lives

    def _readable(self) -> tuple[str, ...]:
        """Return the namespaces that we may list, with those that the ledger's runs are in."""
        runs = [run for run in Ledger(ledger_file()).runs() if run.state is not RunState.ENDED]
        used = [str(run.handle["namespace"]) for run in runs if run.handle.get("namespace")]
        return objects.readable(self._client, [*used, self._client.namespace])

    @property
    def _options(self) -> JobOptions:
        assert self._job_options is not None, "this provider was reopened: it can only attach"
        return self._job_options

    def _objects(self, spec: JobSpec, *, shown: bool) -> tuple[list[Made], tuple[str, ...]]:
        """Return what is made, and warnings about what a template says in vain."""
        options = self._options
        if not options.image:
            raise UsageError(
                f"{spec.example or 'this'} names no image", "give --image, one the cluster can pull"
            )
        due = ends(options, spec, self._client.now())
        marks = Marks(run_id=spec.run_id, owner=Ledger(ledger_file()).id(), deadline=due)
        *others, job = manifest(options, spec, marks, self._packed(spec).keys, shown=shown)
        merged = template.under(job, options.template)
        return [*others, merged.value], merged.warnings

    def _packed(self, spec: JobSpec) -> files.Packed:
        if self._files is None:
            chosen = contents_of(spec.source) if spec.source else None
            self._files = files.packed(chosen, spec) if chosen else files.Packed(keys={})
            if self._files.archive:
                weakref.finalize(self, self._files.archive.close)
        return self._files

    def _warnings(self, spec: JobSpec) -> tuple[str, ...]:
        packed = self._packed(spec)
        warnings = list(packed.warnings)
        options = self._options
        gpus = options.gpu or options.gpu_resource in template.limits(options.template)
        if spec.needs.gpus and not gpus:
            warnings.append(f"{spec.example} asks for a GPU: give --gpu {spec.needs.gpus}")
        if packed.archive:
            warnings.append(SENT.format(size(packed.size), size(files.MOST)))
        if spec.limits.timeout is None:
            warnings.append(f"without --timeout the job ends after {elapsed(NO_LIMIT)}")
        return tuple(warnings)

    def _acquired(self, body: Object, spec: JobSpec, leases: Leases, scope: Scope) -> Resource:
        scope.checkpoint()
        meta, kind = body["metadata"], body["kind"].lower()
        due = float(meta["annotations"][DEADLINE])
        planned = Resource(kind=kind, name=str(meta["name"]), run_id=spec.run_id, deadline=due)
        once = partial(objects.create, self._client, body)
        return leases.acquire(planned, partial(create, once, scope))

    def _give(self, resources: list[Resource]) -> None:
        """Give everything to the Job, so that it goes with it, whoever deletes that."""
        job = next(each for each in resources if each.kind == JOB)
        uid = job.id.rpartition("/")[2]
        for each in resources:
            if each.kind in {SECRET, SERVICE}:
                path, _ = objects.located(each, self._namespace)
                with suppress(Rejected):  # it is in the ledger all the same
                    self._client.patch(path, owned_by(uid, job.name))

    def _verify(self, spec: JobSpec, sent: Object) -> None:
        """Raise `Rejected` where the cluster has silently dropped what it does not know."""
        wanted = self._options.template
        if spec.nodes == 1 and wanted is None:
            return
        job = self._client.get(api_path("jobs", self._namespace, name_of(spec.run_id)))
        if spec.nodes > 1 and job["spec"].get("completionMode") != "Indexed":
            raise CvlError(
                "this cluster is too old for many nodes: it knows no Indexed Jobs",
                "they came with Kubernetes 1.21; leave --nodes out",
            )
        if wanted and (lost := template.dropped(wanted, sent, job)):
            raise CvlError(
                f"this cluster does not know what {wanted.origin} says: {', '.join(lost[:SHOWN])}",
                "look for a misspelling, or a field that came with a later Kubernetes",
            )
