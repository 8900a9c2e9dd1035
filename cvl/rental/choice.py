"""What to rent for one run: chosen when it is planned, looked for again while there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from cvl.core.errors import CvlError, NoCapacity, UsageError
from cvl.core.frozen import dataclass
from cvl.core.interfaces import Offer
from cvl.core.scope import Scope
from cvl.core.spec import Needs
from cvl.core.units import dollars
from cvl.rental.offers import choose, reading

FRESH = 1.0
"""Seconds for which a look at the offers holds: a request costs one of the rate limit."""
AGREE_AGAIN = "the same command again asks at the new price"
PAUSE = 20.0
"""Seconds between two looks for capacity."""
ANY = "<the cheapest that will do>"
SOMEWHERE = "<where there is one>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One kind of machine in one region; not `free`: to be waited for.

    With an `obstacle` nobody could be asked, and there is no price. `note` says how the example's
    needs were read.
    """

    offer: Offer
    region: str
    free: bool = True
    obstacle: CvlError | None = None
    note: str = ""


class Market:
    """The offers of one cloud, as far as one run is concerned."""

    def __init__(
        self,
        offers: Callable[[], Sequence[Offer]],
        *,
        kind: str | None,
        region: str | None,
        patience: float,
    ) -> None:
        """`kind` None: the cheapest that will do. `patience`: seconds to wait for capacity."""
        self._offers, self._kind, self._region = offers, kind, region
        self._patience = patience
        self._named = kind is not None
        self._first: Choice | None = None
        self._agreed: Offer | None = None
        self._fresh = Scope(seconds=0.0)
        self._taken: set[tuple[str, str]] = set()
        self._refusal: NoCapacity | None = None

    def planned(self, needs: Needs) -> Choice:
        """Return what would be rented now. Raises `UsageError`, and `NoCapacity` without patience.

        The type and its price stay: no other is rented later than the one that was agreed to, and
        none that costs more.
        """
        try:
            choice = self._look(needs, wait=self._patience > 0)
        except (UsageError, NoCapacity):
            raise
        except CvlError as obstacle:
            offer = Offer(type=self._kind or ANY, price_per_hour=Decimal(0), gpus=0)
            return Choice(offer=offer, region=self._region or SOMEWHERE, obstacle=obstacle)
        self._kind, self._agreed = choice.offer.type, choice.offer
        self._first, self._fresh = (choice if choice.free else None), Scope(seconds=FRESH)
        return choice

    def choices(self, needs: Needs, scope: Scope) -> Iterator[Choice]:
        """Yield one choice after another, for as long as the last one turns out to be taken.

        What was planned is looked for again unless that was just now: somebody may have thought
        about it for an hour. Raises `NoCapacity` when patience has run out, and as `scope` does.
        """
        if self._first is not None and self._fresh.remaining() != 0:
            yield self._first
        message = ""
        for attempt in scope.attempts((PAUSE,), limit=self._patience):
            try:
                yield self._as_agreed(self._look(needs))
                attempt.at_once()
            except NoCapacity as error:
                self._taken.clear()
                refusal, self._refusal = self._refusal or error, None
                if message != str(refusal):
                    message = str(refusal)
                    scope.tell("waiting", message)
        raise refusal

    def taken(self, choice: Choice, refusal: NoCapacity) -> float:
        """Hear that there was none of those left; return the seconds that may still be waited."""
        self._taken.add((choice.offer.type, choice.region))
        self._refusal = refusal
        return self._patience

    def _as_agreed(self, choice: Choice) -> Choice:
        """Return what is no dearer, and no less, than what was agreed to. Raises `NoCapacity`."""
        agreed, now = self._agreed, choice.offer
        if agreed is None or (
            now.price_per_hour <= agreed.price_per_hour
            and (now.gpus, now.vram_gib, now.arch) == (agreed.gpus, agreed.vram_gib, agreed.arch)
        ):
            return choice
        if now.price_per_hour > agreed.price_per_hour:
            price, before = dollars(now.price_per_hour), dollars(agreed.price_per_hour)
            text = f"{now.type} costs {price} an hour now, and {before} was agreed to"
            raise NoCapacity(text, AGREE_AGAIN)
        raise NoCapacity(f"{now.type} is not what was agreed to any more", AGREE_AGAIN)

    def _look(self, needs: Needs, *, wait: bool = False) -> Choice:
        offers = [self._left_of(each) for each in self._offers()]
        free = True
        anywhere = [replace(each, regions=(self._region or SOMEWHERE,)) for each in offers]
        offer, region = choose(anywhere, needs, kind=self._kind, region=self._region)
        try:
            offer, region = choose(offers, needs, kind=self._kind, region=self._region)
        except (NoCapacity, UsageError) as error:  # that nothing is free in a region may pass too
            if not wait and self._patience > 0:
                raise NoCapacity(str(error), error.hint) from error
            if not wait:
                raise
            free = False
        note = "" if self._named else reading(offers, needs)
        return Choice(offer=offer, region=region, free=free, note=note)

    def _left_of(self, offer: Offer) -> Offer:
        """Return an offer without the regions that have just turned out to have none."""
        regions = [each for each in offer.regions if (offer.type, each) not in self._taken]
        return replace(offer, regions=tuple(regions))
