"""The registry of runners: a name, where its class lies, and what it needs. Loaded on use.

A new runner is one file and one line here; a third-party one is an entry point in the group
`cvl.runners` and needs no line at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast

from cvl.core.errors import CvlError, NotFound, said
from cvl.core.spec import EMPTY

if TYPE_CHECKING:
    from cvl.core.interfaces import Provider

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "local": "cvl.providers.local:LocalRunner",
        "ssh": "cvl.providers.ssh:SSHRunner",
        "lambda": "cvl.providers.lambda_cloud.runner:LambdaLabsRunner",
        "docker": "cvl.providers.docker:DockerContextRunner",
        "sagemaker": "cvl.providers.sagemaker.runner:SageMakerRunner",
        "k8s": "cvl.providers.kubernetes.runner:K8sRunner",
    }
)
"""Name -> module:class. The name is what `--runner` takes and what the ledger keeps."""


class Runner(Protocol):
    """What a runner's class offers beside its constructor and its `run`."""

    name: str

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str]) -> Provider:
        """Return the provider that can `attach` to a handle of an earlier run.

        `secrets` are those of that run's provider, or empty: then the environment has them.
        """
        ...


def load(name: str) -> type[Runner]:
    """Return the runner's class.

    Raises `NotFound`, with the names that there are, and `CvlError` where its own code fails.
    """
    place = BUILT_IN.get(name) or _third_party().get(name)
    if place is None:
        raise NotFound(f"there is no runner {name!r}", f"there are: {', '.join(names())}")
    module, _, attribute = place.partition(":")
    try:
        return cast("type[Runner]", getattr(import_module(module), attribute))
    except CvlError:
        raise
    except (Exception, SystemExit) as error:  # whatever a package does that is not ours
        raise CvlError(
            f"the runner {name!r} cannot be loaded: {said(error)}",
            f"see to the package that has {module}",
        ) from error


def names() -> list[str]:
    """Return the names of all runners, ours first."""
    return [*BUILT_IN, *sorted(set(_third_party()) - set(BUILT_IN))]


def reopen(name: str, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
    """Return the provider behind a run in the ledger. Raises `CvlError` as `handles.checked`."""
    from cvl.core.handles import checked

    return load(name).reopen(checked(name, handle), secrets)


def _third_party() -> dict[str, str]:
    # scanning entry points costs 40 ms: only on a miss, or when all names are wanted
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group="cvl.runners")}
