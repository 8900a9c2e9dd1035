"""The launch: what has to be in order before an instance is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cvl.testing.lambda_cloud import catalog
from cvl.testing.lambda_cloud.instance import Instance, Order
from cvl.testing.lambda_cloud.replies import CAPACITY, INVALID, MISSING, WRONG_REGION, ApiError
from cvl.testing.lambda_cloud.state import Cloud

Body = Mapping[str, object]
USER_DATA_LIMIT = 1_000_000
TAG = re.compile(r"[a-z][a-z0-9-:]+\Z")
HOSTNAME = re.compile(r"[a-z0-9][0-9a-z-]{0,62}\Z")


def launch(cloud: Cloud, body: Body) -> Instance:
    """Make an instance, or raise `ApiError` and change nothing."""
    order = _order(cloud, body)
    _check_image(body.get("image"))
    if len(cloud.alive()) >= cloud.settings.quota:
        raise ApiError(400, "global/quota-exceeded")
    if cloud.free(order.type.name, order.region) < 1:
        raise ApiError(400, CAPACITY)
    return cloud.create(order)


def _order(cloud: Cloud, body: Body) -> Order:
    for key in ("region_name", "instance_type_name", "ssh_key_names"):
        if key not in body:
            raise ApiError(400, INVALID, f"{key} is missing.")
    region, type_ = str(body["region_name"]), str(body["instance_type_name"])
    if region not in catalog.REGIONS:
        raise ApiError(400, INVALID, f"There is no region {region}.")
    if type_ not in catalog.TYPES:
        raise ApiError(404, MISSING, f"There is no instance type {type_}.")
    mounts = tuple(_mounts(cloud, body, region))
    return Order(
        region=region,
        type=catalog.TYPES[type_],
        keys=_keys(cloud, body["ssh_key_names"]),
        name=_text(body, "name", 64),
        hostname=_hostname(body),
        tags=tuple(_tags(body)),
        file_systems=tuple(name for name, _, _ in mounts),
        mounts=tuple((point, id_) for _, point, id_ in mounts),
        user_data=_text(body, "user_data", USER_DATA_LIMIT) or "",
    )


def _keys(cloud: Cloud, names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) != 1:
        raise ApiError(400, INVALID, "Exactly one SSH key must be specified.")
    if not any(key["name"] == names[0] for key in cloud.keys.values()):
        raise ApiError(404, MISSING, f"There is no SSH key {names[0]}.")
    return (str(names[0]),)


def _text(body: Body, key: str, limit: int) -> str | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value.encode()) > limit:
        raise ApiError(400, INVALID, f"{key} must be a text of at most {limit} bytes.")
    return value


def _hostname(body: Body) -> str | None:
    name = _text(body, "hostname", 63)
    if name is not None and not HOSTNAME.match(name):
        raise ApiError(400, INVALID, "hostname does not match its pattern.")
    return name


def _tags(body: Body) -> Iterator[tuple[str, str]]:
    tags = body.get("tags") or []
    for tag in tags if isinstance(tags, list) else [tags]:
        if not isinstance(tag, dict):
            raise ApiError(400, INVALID, "A tag is a key and a value.")
        key, value = str(tag.get("key", "")), str(tag.get("value", ""))
        if not TAG.match(key) or len(key) > 55 or len(value) > 128:
            raise ApiError(400, INVALID, f"The tag {key} does not fit its pattern.")
        yield key, value


def _mounts(cloud: Cloud, body: Body, region: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, mount point and id of each file system that was asked for."""
    known = {str(each["name"]): each for each in cloud.file_systems.values()}
    names = body.get("file_system_names") or []
    for name in names if isinstance(names, list) else []:
        if name not in known:
            raise ApiError(404, MISSING, f"There is no filesystem {name}.")
        found = known[name]
        if found["region"] != catalog.region(region):
            raise ApiError(400, WRONG_REGION, f"The filesystem {name} is in another region.")
        yield name, str(found["mount_point"]), str(found["id"])


def _check_image(image: object) -> None:
    if image is None:
        return
    known = {str(each[key]) for each in catalog.images() for key in ("id", "family")}
    asked = image.get("id") or image.get("family") if isinstance(image, dict) else None
    if asked not in known:
        raise ApiError(404, MISSING, f"There is no image {asked}.")
