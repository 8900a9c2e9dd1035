"""Lambda's machines and SSH keys as a `Cloud`: rented under our names and tags, found by them.

Lambda enforces no deadline and an OS shutdown does not end billing: only `terminate` does. So a
machine carries its deadline in a tag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import cast
from urllib.parse import quote

from cvl.core import replies
from cvl.core.api_key import checked
from cvl.core.errors import Ambiguity, CvlError, Missing
from cvl.core.interfaces import Leases, Machine, Offer, Order
from cvl.core.request_template import Template
from cvl.core.scope import Scope
from cvl.core.spec import Resource
from cvl.core.tags import Marks, listed, name_of, surely_run_of, unlisted
from cvl.core.units import variable
from cvl.providers.lambda_cloud import account, deadline
from cvl.providers.lambda_cloud import template as lambda_template
from cvl.providers.lambda_cloud.api import BASE, LAUNCH, TERMINATE, Json, LambdaAPI
from cvl.providers.lambda_cloud.key import another, lambda_key
from cvl.rental.cloud_init import user_data
from cvl.rental.provider import KIND

BOOT_LIMIT = 1800.0
"""Seconds: 8xH100 machines were seen to take 25 minutes."""
LISTING_LAG = 120.0
"""Seconds after a launch in which it may not be listed yet; `LAMBDA_SETTLE`."""
KEY_KIND = "ssh-key"
STATES: Mapping[str, str] = {
    "booting": "booting",
    "active": "ready",
    "unhealthy": "broken",
    "preempted": "broken",
    "terminating": "gone",
    "terminated": "gone",
}
"""Lambda's status -> `Machine.state`; one that is not here is taken for booting, and billed."""
OVER = frozenset({"terminated"})
"""The only status that ends billing; an unknown one does not."""

LAYERS = (
    "cvl itself, on every ending",
    "the guardian on this machine, if cvl dies",
    "`cvl reap` from any machine with the key, past the deadline in the machine's tags",
)
ARM = re.compile(
    r"(?<![a-z0-9])(g[hb]|vr)\d{2,3}(?![0-9])|(?<![a-z])(arm|arm64|aarch64|gra(ce|viton)\d?)(?![a-z])",
    re.IGNORECASE,
)
MEMORY = re.compile(r"(?<!\d)(\d{1,6})\s{0,4}Gi?B\b", re.IGNORECASE)
ADDRESS = re.compile(r"[0-9A-Za-z][0-9A-Za-z.:-]{0,252}\Z")
MOST = 10**6
"""The largest count of anything in one machine, in its own unit."""


class LambdaCloud:
    """The `Cloud`: Lambda's machines and SSH keys, as far as they are ours."""

    name = "lambda"
    user = "ubuntu"
    unique = frozenset[str]()
    boot_limit = BOOT_LIMIT

    def __init__(
        self, api: LambdaAPI, *, self_terminate: bool = False, template: Template | None = None
    ) -> None:
        """The API's key is handed to the guardian, which has no environment that holds it."""
        self._api, self._self_terminate, self._template = api, self_terminate, template
        more = (deadline.LAYER,) if self_terminate else ()
        self.layers: tuple[str, ...] = (*LAYERS, *more)
        self.warnings: tuple[str, ...] = (deadline.WARNING,) if self_terminate else ()
        self.listing_lag = variable("LAMBDA_SETTLE", LISTING_LAG)
        self.secrets: Mapping[str, str] = {"api_key": api.key}
        self._account = ""

    def offers(self) -> list[Offer]:
        catalog = self._api.get("/instance-types")
        with understood():
            kinds = cast("Mapping[str, Json]", catalog).values()
            offers = [each for each in map(readable_offer, kinds) if each]
            if kinds and not offers:
                raise TypeError(catalog)
            return sorted(offers, key=lambda each: each.price_per_hour)

    def now(self) -> float | None:
        return self._api.now()

    def identity(self) -> str:
        return account.identity_of(self._api, self._account)

    def confirm(self, identity: str) -> None:
        account.confirm(self._api, identity)

    def request(self, order: Order) -> Mapping[str, object]:
        return self._request(order, deadline.REDACTED)

    def _request(self, order: Order, key: str) -> Mapping[str, object]:
        """Return the request; with the real key it is only for the wire."""
        armed = self._self_terminate
        timer = deadline.cloud_config(order, self._api.base, key) if armed else {}
        ours = {
            "region_name": order.region,
            "instance_type_name": order.offer.type,
            "ssh_key_names": [name_of(order.run_id)],
            "name": name_of(order.run_id),
            "hostname": name_of(order.run_id)[:63],  # ^[a-z0-9][0-9a-z-]{0,62}$
            "tags": listed(order.marks.tags, "key", "value"),
            "user_data": user_data(order, timer),
        }
        return lambda_template.under(ours, self._template)

    def rent(self, order: Order, leases: Leases, scope: Scope) -> Resource:
        name = name_of(order.run_id)
        key = leases.held(KEY_KIND) or leases.acquire(
            Resource(kind=KEY_KIND, name=name, run_id=order.run_id),
            partial(self._add_key, name, order.public_key),
        )
        scope.tell("renting", f"{order.offer.type} in {order.region}")
        self._api.launch_turn(scope)
        scope.checkpoint()
        machine = leases.acquire(
            Resource(
                kind=KIND,
                name=name,
                run_id=order.run_id,
                deadline=order.deadline,
                price_per_hour=order.offer.price_per_hour,
            ),
            partial(self._launch, self._request(order, self.secrets["api_key"])),
            in_doubt=partial(self._forget_key, key),
        )
        with suppress(CvlError):  # while it boots; without an answer the key stands for it
            self._account = account.account(self._api)
        return machine

    def admitted(self, leases: Leases) -> None:
        leases.ask(KEY_KIND)

    def look(self, resource: Resource) -> Machine:
        entries = [replies.entry(each) for each in self._listed("/instances")]
        instance = next((each for each in entries if each.get("id") == resource.id), None)
        if instance is None:
            if not all(replies.text(each.get("id")) for each in entries):
                raise Ambiguity("the Lambda API lists what makes no sense: a machine without an id")
            return Machine(state="missing", words="not listed")
        status, address = replies.text(instance.get("status")), replies.text(instance.get("ip"))
        state = STATES.get(status, "booting")
        if state == "ready" and not ADDRESS.match(address):
            return Machine(state="booting", words="active, without an address yet")
        return Machine(state=state, address=address, words=status or "in a state that it hides")

    def owned(self, kind: str = "") -> Iterable[Resource]:
        if kind in {"", KIND}:
            yield from replies.read(KIND, self._listed("/instances"), machine_of)
        if kind in {"", KEY_KIND}:
            yield from replies.read(KEY_KIND, self._listed("/ssh-keys"), key_of)

    def _listed(self, path: str) -> list[object]:
        rows = self._api.listed(path)
        with understood():
            if not isinstance(rows, list):  # an empty object would pass for an empty list
                raise TypeError(rows)
            return rows

    def destroy(self, resource: Resource) -> None:
        if not resource.id:
            return  # listed without one: what is not said cannot be ended, and stays open
        try:
            if resource.kind == KEY_KIND:
                self._api.delete(f"/ssh-keys/{quote(resource.id, safe='')}")
            else:
                self._api.post(TERMINATE, {"instance_ids": [resource.id]})
        except Missing:
            return

    def _add_key(self, name: str, public_key: str) -> str:
        key = self._api.once("/ssh-keys", {"name": name, "public_key": public_key})
        with understood():
            return _identity(cast("Json", key)["id"])

    def _launch(self, request: Json) -> str:
        launched = self._api.once(LAUNCH, request)
        with understood():
            return _identity(cast("Mapping[str, Sequence[object]]", launched)["instance_ids"][0])

    def _forget_key(self, key: Resource) -> None:
        """Take the key away first: a launch that is still under way over there then fails."""
        with suppress(CvlError):  # its line stays open: it is deleted with the rest
            self.destroy(key)


@contextmanager
def understood() -> Iterator[None]:
    """Take a reply that lacks what the API's document requires for no reply at all."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise Ambiguity(f"the Lambda API answered what makes no sense ({error!r})") from error


def readable_offer(entry: Json) -> Offer | None:
    """Return one entry of `GET /instance-types`, None for one that cannot be read."""
    with suppress(LookupError, TypeError, ValueError, AttributeError):
        return offer_of(entry)
    return None


def offer_of(entry: Json) -> Offer:
    """Return one entry of `GET /instance-types`."""
    kind = cast("Json", entry["instance_type"])
    specs = cast("Mapping[str, object]", kind["specs"])
    price = replies.price(kind["price_cents_per_hour"])
    if price is None:
        raise ValueError(kind)
    regions = cast("Sequence[Json]", entry["regions_with_capacity_available"])
    described = str(kind.get("gpu_description") or kind.get("description") or "")
    memory = MEMORY.search(described)
    return Offer(
        type=str(kind["name"]),
        price_per_hour=price,
        gpus=_count(specs["gpus"]),
        description=described,
        vram_gib=float(memory[1]) if memory else 0,
        cpus=_count(specs["vcpus"]),
        ram_gib=_count(specs["memory_gib"]),
        disk_gib=_count(specs["storage_gib"]),
        regions=tuple(str(region["name"]) for region in regions),
        arch=arch_of(f"{kind['name']} {described} {kind.get('description')}"),
    )


def arch_of(words: str) -> str:
    """Return the processor of a type by its name and description: the API tells no other way.

    NVIDIA's superchips (GH200, GB200, GB300, GB10, VR200) have Grace or Vera processors: arm64.
    """
    return "arm64" if ARM.search(words) else "amd64"


def _identity(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= MOST:
        raise ValueError(value)
    return value


def machine_of(entry: Json) -> Resource | None:
    """Return an entry of `GET /instances` if it is ours, or if nobody can say whether it is.

    It carries our tag; or our name, or that of our key, which is the one of them that the API
    always shows. A status that is not known is alive.
    """
    marks = Marks.read(unlisted(replies.entries(entry.get("tags")), "key", "value"))
    run_id = marks.run_id or _run_of(entry)
    resource_id = replies.text(entry.get("id"))
    if not run_id:
        return None if _legible(entry) else replies.unreadable(KIND, resource_id)
    status = replies.text(entry.get("status"))
    kind = replies.entry(entry.get("instance_type"))
    return Resource(
        kind=KIND,
        name=replies.text(entry.get("name")) or name_of(run_id),
        id=resource_id,
        run_id=run_id,
        owner=marks.owner,
        deadline=marks.deadline,
        price_per_hour=replies.price(kind.get("price_cents_per_hour")),
        alive=status not in OVER,
        proven=bool(marks.run_id),
        note=status,
    )


def _legible(entry: Json) -> bool:
    """Return whether everything is there that an entry of ours would be known by."""
    names = replies.entries(entry.get("ssh_key_names"))
    return (
        bool(replies.text(entry.get("id")))
        and isinstance(entry.get("name"), str | None)
        and isinstance(entry.get("tags"), list | None)
        and bool(names)
        and all(isinstance(each, str) for each in names)
    )


def _run_of(entry: Json) -> str:
    """Return the run that an instance bears the name of, "" for none of ours."""
    names = (entry.get("name"), *replies.entries(entry.get("ssh_key_names")))
    return next(filter(None, map(surely_run_of, names)), "")


def key_of(entry: Json) -> Resource | None:
    """Return an entry of `GET /ssh-keys` if it bears a name of ours: keys have no tags."""
    name, resource_id = replies.text(entry.get("name")), replies.text(entry.get("id"))
    if not name:
        return replies.unreadable(KEY_KIND, resource_id)
    run_id = surely_run_of(name)
    return Resource(kind=KEY_KIND, name=name, id=resource_id, run_id=run_id) if run_id else None


def api(key: str | None = None) -> LambdaAPI:
    """Return the account's API, as the environment says; without a key every request fails.

    Raises `UsageError` for what cannot be a key, and for an address that is not encrypted.
    """
    rate = variable("LAMBDA_API_RPS", 1)
    return LambdaAPI(
        checked(key, "api_key") if key else lambda_key(),
        os.environ.get("LAMBDA_API_BASE", BASE),
        interval=1 / rate if rate > 0 else 0,
        launch_interval=variable("LAMBDA_LAUNCH_INTERVAL", 12),
        read_limit=variable("LAMBDA_READ_LIMIT", 30),
        another=another,
    )
