"""The registry of runners: a name, where its class lies, how it is chosen. Loaded on use.

A new runner is one file or folder and one line here; what else is to be known of it, its class
declares (`cvl.providers.runner`). A third-party one is an entry point in the group `cvl.runners`
and needs no line at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from cvl.core.errors import CvlError, NotFound, said
from cvl.core.secrets import keep_ours

if TYPE_CHECKING:
    from cvl.core.interfaces import Provider
    from cvl.providers.runner import Runner


class Entry(NamedTuple):
    """What is known of a runner before its class is loaded.

    `target` is module:class, the module seen from here. `flag` chooses it for `cvl run`: `--NAME`
    or `--NAME HOST`; "" is `--remote NAME`, for what rents a machine. `keys` are variables that
    hold its secrets, and of which no program that we start is in need.
    """

    target: str
    flag: str = ""
    help: str = ""
    keys: tuple[str, ...] = ()


BUILT_IN: Mapping[str, Entry] = MappingProxyType(
    {
        "local": Entry(".local:LocalRunner", "--local", "Run on this machine (the default)."),
        "ssh": Entry(
            ".ssh:SSHRunner", "--ssh HOST", "Run on a machine of yours, with cvl put on it."
        ),
        "docker": Entry(
            ".docker:DockerContextRunner",
            "--docker HOST",
            "Run on a machine of yours with Docker, without cvl there.",
        ),
        "lambda": Entry(".lambda_cloud.runner:LambdaLabsRunner", keys=("LAMBDA_API_KEY",)),
        "sagemaker": Entry(
            ".sagemaker.runner:SageMakerRunner", "--sagemaker", "Run as a SageMaker training job."
        ),
        "k8s": Entry(".kubernetes.runner:K8sRunner", "--k8s", "Run as a Kubernetes Job."),
    }
)
"""Name -> its line. The name is what `--runner` takes and what the ledger keeps."""
HOSTED = tuple(name for name, each in BUILT_IN.items() if each.flag.endswith(" HOST"))
"""Runners whose place is a host that the user names."""
KEYS = tuple(key for each in BUILT_IN.values() for key in each.keys)
keep_ours(KEYS)


def load(name: str) -> type[Runner]:
    """Return the runner's class.

    Raises `NotFound`, with the names that there are, and `CvlError` where its own code fails.
    """
    entry = BUILT_IN.get(name)
    target = entry.target if entry else _third_party().get(name)
    if target is None:
        raise NotFound(f"there is no runner {name!r}", f"there are: {', '.join(names())}")
    module, _, attribute = target.partition(":")
    try:
        return _whole(getattr(import_module(module, __name__), attribute))
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


def flag_of(name: str) -> str:
    """Return how a runner is chosen on the command line."""
    if name not in BUILT_IN:
        return f"--runner {name}"
    return BUILT_IN[name].flag or f"--remote {name}"


def every() -> Iterator[type[Runner]]:
    """Yield the class of each runner that can be loaded: this takes a moment."""
    for name in names():
        try:
            yield load(name)
        except CvlError:  # whoever asks for it by its name hears why
            continue


def timer_variables(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a timer of `cvl reap` has to know to ask all of them. Raises `UsageError`."""
    return {
        name: value for runner in every() for name, value in runner.timer_variables(environ).items()
    }


def reopen(
    name: str, handle: Mapping[str, str], secrets: Mapping[str, str] = MappingProxyType({})
) -> Provider:
    """Return the provider behind a run in the ledger. Raises `CvlError` as `handles.checked`."""
    from cvl.core.handles import checked
    from cvl.core.interfaces import Provider, completed

    runner = load(name)
    known = checked(name, handle, runner.acting, runner.files)
    return completed(runner.reopen(known, secrets), Provider)


def _whole(cls: type) -> type[Runner]:
    """Return a class with all that a runner declares, as it says or as it stands there."""
    from cvl.providers.runner import Runner

    if issubclass(cls, Runner):
        return cls
    if cls not in _COMPLETED:
        _COMPLETED[cls] = type(cls.__name__, (cls, Runner), {})
    return _COMPLETED[cls]


_COMPLETED: dict[type, type[Runner]] = {}


def _third_party() -> dict[str, str]:
    # scanning entry points costs 40 ms: only on a miss, or when all names are wanted
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group="cvl.runners")}
