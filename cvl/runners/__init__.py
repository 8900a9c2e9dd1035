"""The classes of all runners, by their public names: each is loaded when it is asked for.

Any class of the registry (`cvl.providers`) can be imported from here; those of long standing are
named once more, for type checkers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvl.providers import BUILT_IN, load

if TYPE_CHECKING:
    from cvl.providers.docker import DockerContextRunner
    from cvl.providers.kubernetes.runner import K8sRunner
    from cvl.providers.lambda_cloud.runner import LambdaLabsRunner
    from cvl.providers.local import LocalRunner
    from cvl.providers.sagemaker.runner import SageMakerRunner
    from cvl.providers.ssh import SSHRunner

__all__ = [
    "DockerContextRunner",
    "K8sRunner",
    "LambdaLabsRunner",
    "LocalRunner",
    "SSHRunner",
    "SageMakerRunner",
]

_CLASSES = {each.target.rpartition(":")[2]: name for name, each in BUILT_IN.items()}


def __getattr__(name: str) -> object:
    if name in _CLASSES:
        return load(_CLASSES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})
