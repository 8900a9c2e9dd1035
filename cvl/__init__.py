"""Run an ML example on somebody else's machine as if it were this one.

The public names of what a runner takes, returns and raises: each is loaded when it is asked for.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing itself would take longer to load than `cvl --version` takes
if TYPE_CHECKING:
    from cvl.core.errors import (
        CvlError,
        FetchError,
        HostError,
        LostContact,
        ProviderError,
        StillOpen,
        UsageError,
    )
    from cvl.core.interfaces import Observer
    from cvl.core.spec import Cause, ExitStatus, LogChunk, Plan

__all__ = [
    "Cause",
    "CvlError",
    "ExitStatus",
    "FetchError",
    "HostError",
    "LogChunk",
    "LostContact",
    "Observer",
    "Plan",
    "ProviderError",
    "StillOpen",
    "UsageError",
]

_ROOMS = ("errors", "spec", "interfaces")


def __getattr__(name: str) -> object:
    if name in __all__:
        from importlib import import_module

        for room in _ROOMS:
            if hasattr(module := import_module(f"cvl.core.{room}"), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
