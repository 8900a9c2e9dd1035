"""What a place to run declares: all that others know of it beside its line in the registry.

What happens with a run there (a guardian, how long a stop takes, many nodes) its `Provider` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

from cvl.core.paths import learn_paths
from cvl.core.spec import EMPTY

if TYPE_CHECKING:
    from cvl.core.extras import Extra
    from cvl.core.interfaces import Offer, Provider, Reapable
    from cvl.core.spec import ExitStatus
    from cvl.providers.needs import Check


class Runner:
    """The base of every runner's class; what one leaves out is as it stands here.

    A class of another package need not have this base: `cvl.providers.load` adds it.
    """

    name: ClassVar[str]
    extra: ClassVar[Extra | None] = None
    """The packages that only it needs."""
    options_help: ClassVar[Mapping[str, str]] = EMPTY
    """What the parameters of `__init__` and `run` mean that are options of `cvl run`."""
    places: ClassVar[Sequence[str]] = ("host",)
    """Those of them that say where a run, its secrets or its results go."""
    acting: ClassVar[Mapping[str, str]] = {"config": "CVL_SSH_CONFIG", "base": ""}
    """Keys of a handle that decide what runs or where something is sent -> the variable that says
    them here."""
    files: ClassVar[Sequence[str]] = ("config",)
    """Those of them that name files or folders of this machine, which may hold commands."""
    path_variables: ClassVar[Sequence[str]] = ()
    """Variables that name a file or a folder, to it or to what it starts."""
    path_lists: ClassVar[Sequence[str]] = ()
    """The same, several with `:` between them."""

    reapable: ClassVar[bool] = False
    """Whether what its runs make out there can be found by tag alone: then `owner` finds it."""
    reach: ClassVar[Sequence[str]] = ()
    """Keys of a handle that lead elsewhere: to another region, another cluster. Without any, what
    its runs have is reached by a key of their own."""
    variables: ClassVar[Sequence[str]] = ()
    """Variables that say that it is meant."""
    regional: ClassVar[bool] = False
    """Whether `everywhere` leads to more places than runs have been in."""
    lists_offers: ClassVar[bool] = False
    """Whether `offers` says what can be rented."""

    def __init_subclass__(cls, **more: object) -> None:
        """Have what a caller gives it checked before any of it is used."""
        from cvl.providers.arguments import checked

        super().__init_subclass__(**more)
        for name, function in vars(cls).copy().items():
            if isinstance(function, FunctionType) and (name == "__init__" or name[0] != "_"):
                setattr(cls, name, checked(function))
        learn_paths(cls.path_variables, cls.path_lists)

    def run(self, *args: Any, **options: Any) -> ExitStatus:
        """Run an example. Returns the script's exit code; raises `CvlError`."""
        raise NotImplementedError

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        """Return the provider that can `attach` to a handle of an earlier run.

        `secrets` are those of that run's provider, or empty: then the environment has them.
        """
        raise NotImplementedError

    @classmethod
    def needs(cls) -> Iterator[Check]:
        """Look at what it needs on this machine; asks nobody. May raise `CvlError`."""
        yield from ()

    @classmethod
    def offers(cls) -> Sequence[Offer]:
        """Return what can be rented, now or later. Raises `CvlError`."""
        return ()

    @classmethod
    def owner(cls) -> Reapable | None:
        """Return whom `cvl reap` asks, None without a login. Raises `CvlError`."""
        return None

    @classmethod
    def login(cls) -> bool:
        """Return whether there may be a login for it on this machine; asks nobody."""
        with suppress(Exception):  # whatever a package does that is not ours
            return cls.owner() is not None
        return True

    @classmethod
    def has_key(cls) -> bool:
        """Return whether there is a key that nobody but cvl has a use for; asks nobody."""
        return False

    @classmethod
    def everywhere(cls, handle: Mapping[str, str] = EMPTY) -> Iterator[Reapable]:
        """Yield what `cvl reap` asks now and then: all places of whom `handle` leads to."""
        del handle
        yield from ()

    @classmethod
    def timer_variables(cls, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return what a timer of `cvl reap` has to know for as long as it is there.

        Raises `UsageError` for what is no good.
        """
        del environ
        return {}
