"""K8sRunner: an example, or just an image, as a Job on any Kubernetes cluster.

Kubernetes ends every Job itself at its deadline, whatever becomes of this machine: no guardian is
needed. The Job's name carries the run id and is unique in a namespace, so a lost reply is settled
by asking for that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Unpack

from cvl.cleanup.reap_timer import lasting_variables
from cvl.container.command import command as own_command
from cvl.core.errors import UsageError
from cvl.core.identity import noted
from cvl.core.interfaces import Provider, Reapable
from cvl.core.spec import EMPTY, ExitStatus, JobSpec, new_run_id
from cvl.core.units import duration
from cvl.providers import base, needs
from cvl.providers.common import Common
from cvl.providers.kubernetes import template
from cvl.providers.kubernetes.api_errors import EXTRA
from cvl.providers.kubernetes.client import Client
from cvl.providers.kubernetes.job_options import PULL_POLICY, JobOptions, mounts, pairs
from cvl.providers.kubernetes.kubeconfig import IN_CLUSTER, access, configured
from cvl.providers.kubernetes.provider import Kubernetes
from cvl.providers.needs import Check
from cvl.providers.runner import Runner

FILES = (
    *("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"),
    *("CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CONFIG_DIR"),
    "KUBECACHEDIR",
)
"""Variables that name files, to us or to a program that a kubeconfig names."""
KEPT = (
    *("KUBECONFIG", "KUBERNETES_SERVICE_", "POD_NAMESPACE", "CVL_KUBE_"),
    *("CLOUDSDK_", "GOOGLE_APPLICATION_CREDENTIALS", "USE_GKE_GCLOUD_AUTH_PLUGIN"),
    *("AZURE_CONFIG_DIR", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_AUTHORITY_HOST"),
    *("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE", "AAD_"),
)
"""Variables by which a timer finds the cluster, or such a program the login."""


class K8sRunner(Runner):
    """Makes a Job, follows it, brings its results, and sees it gone."""

    name = "k8s"
    extra = EXTRA
    reapable = True
    reach: ClassVar = ("context", "kubeconfig")
    variables: ClassVar = ("KUBECONFIG",)
    places: ClassVar = ("context", "kubeconfig", "namespace")
    acting: ClassVar = {"kubeconfig": "KUBECONFIG"}
    files: ClassVar = ("kubeconfig",)
    path_variables: ClassVar = FILES
    path_lists: ClassVar = ("KUBECONFIG", "CVL_KUBECONFIG")
    options_help: ClassVar = {
        "namespace": "where the Job is made; default: the context's own",
        "context": "which of the kubeconfig's; default: its current one",
        "kubeconfig": "a file; default: KUBECONFIG, or ~/.kube/config",
        "image": "what it runs in; default: the example's own",
        "entry_command": "a line for a shell, run in place of the preset's",
        "gpu": "GPUs, and a toleration for nodes that are kept for them",
        "gpu_resource": "what the cluster calls them",
        "memory": "asked for and not exceeded: 8Gi",
        "cpu": "asked for: 4, 500m",
        "disk": "ephemeral storage: 20Gi",
        "shm": "the size of /dev/shm; default: as much as the memory",
        "node_selector": "KEY=VALUE that a node must bear; may be repeated",
        "volume": "CLAIM:/PATH, a PersistentVolumeClaim; may be repeated",
        "service_account": "what the pod runs as",
        "pull_secrets": "a Secret for the image's registry; may be repeated",
        "pull_policy": f"Always, IfNotPresent or Never; default: {PULL_POLICY}",
        "label": "KEY=VALUE for Job and pods, as a queue wants it; may be repeated",
        "annotation": "KEY=VALUE for Job and pods; may be repeated",
        "pod_template": "a file with what there is no option for: a Pod, as YAML",
        "start_timeout": "end it if it has not started by then: 2h, 30m",
    }

    def __init__(
        self,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
    ) -> None:
        """Connects to nothing. `namespace` None is the context's own."""
        self._namespace = namespace
        self._client = Client(context, kubeconfig)

    def run(
        self,
        example: str = "",
        preset: str = "",
        args: Sequence[str] = (),
        *,
        image: str | None = None,
        command: Sequence[str] = (),
        entry_command: str | None = None,
        gpu: int = 0,
        gpu_resource: str = "nvidia.com/gpu",
        memory: str | None = None,
        cpu: str | None = None,
        disk: str | None = None,
        shm: str | None = None,
        timeout_minutes: float | None = None,
        start_timeout: str = "24h",
        node_selector: Sequence[str] = (),
        volume: Sequence[str] = (),
        service_account: str | None = None,
        pull_secrets: Sequence[str] = (),
        pull_policy: str | None = None,
        label: Sequence[str] = (),
        annotation: Sequence[str] = (),
        pod_template: Path | None = None,
        **common: Unpack[Common],
    ) -> ExitStatus:
        """Run the example in a pod; without one, `command` in `image`, exactly as it is.

        An empty `command` is the image's own. `pod_template` is a file: a Pod or a PodTemplate
        over which ours is merged. Returns the exit code of the script, or of the container;
        raises `CvlError`.
        """
        self._client.doors.hear = base.observer_of(common).warn
        pod = template.read(Path(pod_template)) if pod_template else None
        options = JobOptions(
            namespace=self._namespace or self._client.namespace,
            image=image or template.of_container(pod, "image"),
            gpu=gpu,
            gpu_resource=gpu_resource,
            memory=memory or "",
            cpu=cpu or "",
            disk=disk or "",
            shm=shm or "",
            node_selector=pairs(node_selector, "--node-selector"),
            volumes=mounts(volume),
            service_account=service_account or template.service_account(pod),
            pull_secrets=tuple(pull_secrets),
            pull_policy=(
                pull_policy or template.of_container(pod, "imagePullPolicy") or PULL_POLICY
            ),
            labels=pairs(label, "--label"),
            annotations=pairs(annotation, "--annotation"),
            start_limit=duration(start_timeout),
            template=pod,
        )
        if (most := common.pop("configured_max_cost", None)) is not None:
            text = f"max_cost = {most} cannot be kept here: a cluster has no price"
            base.observer_of(common).warn(text)
        if example:
            if common.get("keep") or not common.get("fetch", True):
                raise UsageError(
                    "a pod keeps nothing after its end",
                    "say --no-keep --fetch, or let the job write to a volume (--volume)",
                )
            spec = base.job(
                example, preset, args, common, timeout_minutes=timeout_minutes, checked=False
            )
            spec = replace(spec, argv=own_command(spec, entry_command))
            options = replace(options, image=options.image or spec.image or "")
        else:
            spec = _bare((*command, *args), common, timeout_minutes)
        return base.run(Kubernetes(self._client, options), spec, common)

    @classmethod
    def needs(cls) -> Iterator[Check]:
        yield needs.packages(EXTRA)
        yield from needs.login("kubeconfig", configured(), cls._kubeconfig_read)

    @staticmethod
    def _kubeconfig_read() -> Check:
        login = access()
        return Check("kubeconfig", True, f"context {login.context}, {login.server}")

    @classmethod
    def timer_variables(cls, environ: Mapping[str, str]) -> Mapping[str, str]:
        return lasting_variables(environ, KEPT)

    @classmethod
    def login(cls) -> bool:
        return configured()

    @classmethod
    def owner(cls) -> Reapable | None:
        if not configured():
            return None
        EXTRA.require()
        return Kubernetes(Client())

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        EXTRA.require()
        context = handle.get("context") or None
        client = Client(None if context == IN_CLUSTER else context, handle.get("kubeconfig"))
        return Kubernetes(client, namespace=handle.get("namespace", ""), identity=noted(handle))


def _bare(argv: tuple[str, ...], common: Common, timeout_minutes: float | None) -> JobSpec:
    """Return a job without an example."""
    if common.get("include") or common.get("tty"):
        raise UsageError("no example is given", "name one, or leave its options out")
    spec = JobSpec(run_id=new_run_id("k8s"), argv=argv, args=argv)
    return base.equipped(spec, common, base.limits(common, timeout_minutes))
