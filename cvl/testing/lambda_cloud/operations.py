"""The operations of the API, each by its operationId: a function of the cloud and the request."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from cvl.rental.keys import generate
from cvl.testing.lambda_cloud import catalog
from cvl.testing.lambda_cloud.catalog import Json
from cvl.testing.lambda_cloud.faults import Fault, What
from cvl.testing.lambda_cloud.instance import Instance, Status
from cvl.testing.lambda_cloud.launching import launch
from cvl.testing.lambda_cloud.replies import INVALID, MISSING, ApiError
from cvl.testing.lambda_cloud.state import Cloud

Params = Mapping[str, str]
Body = Mapping[str, object]
KEY_LIMIT = 1024


def perform(cloud: Cloud, operation: str, params: Params, body: Body) -> object:
    """Carry out an operation, at once and whole. Raises `ApiError` if it is refused."""
    with cloud.lock:
        cloud.advance()
        return OPERATIONS[operation](cloud, params, body)


def _types(cloud: Cloud, _params: Params, _body: Body) -> Json:
    return {
        name: {
            "instance_type": type_.json(),
            "regions_with_capacity_available": [
                catalog.region(region) for region in catalog.REGIONS if cloud.free(name, region) > 0
            ],
        }
        for name, type_ in catalog.TYPES.items()
    }


def _regions(_cloud: Cloud, _params: Params, _body: Body) -> list[Json]:
    return [catalog.region(name) for name in catalog.REGIONS]


def _images(_cloud: Cloud, _params: Params, _body: Body) -> list[Json]:
    return catalog.images()


def _list(cloud: Cloud, _params: Params, _body: Body) -> list[Json]:
    return [cloud.show(each) for each in cloud.listed() if not _hidden(each)]


def _get(cloud: Cloud, params: Params, _body: Body) -> Json:
    instance = cloud.find(params["id"])
    if _hidden(instance):
        raise ApiError(404, MISSING)
    return cloud.show(instance)


def _hidden(instance: Instance) -> bool:
    """Return whether a fresh launch does not show yet; each time counts as one."""
    instance.hidden -= 1
    return instance.hidden >= 0


def _rename(cloud: Cloud, params: Params, body: Body) -> Json:
    instance = cloud.find(params["id"])
    if "name" in body:
        instance.name = str(body["name"])
    return cloud.show(instance)


def _launch(cloud: Cloud, _params: Params, body: Body) -> Json:
    return {"instance_ids": [launch(cloud, body).id]}


def _terminate(cloud: Cloud, _params: Params, body: Body) -> Json:
    instances = _named(cloud, body)
    now = cloud.now()
    kinds = frozenset({What.IGNORED, What.BUSY, What.LINGERS})
    armed = cloud.faults.take_all("terminateInstance", kinds)
    faults = {fault.what: fault for fault in armed}
    boots = any(each.status is Status.BOOTING for each in instances)
    if boots and (What.BUSY in faults or not cloud.settings.terminate_while_booting):
        raise ApiError(400, INVALID, "The instance cannot be terminated while it is launching.")
    if What.IGNORED in faults:
        shown = [{**cloud.show(each), "status": "terminating"} for each in instances]
        return {"terminated_instances": shown}
    for each in instances:
        each.terminate(now, _seconds(cloud, faults))
    return {"terminated_instances": [cloud.show(each) for each in instances]}


def _seconds(cloud: Cloud, faults: Mapping[What, Fault]) -> float:
    if What.LINGERS in faults:
        return faults[What.LINGERS].delay
    return cloud.settings.terminate_seconds


def _restart(cloud: Cloud, _params: Params, body: Body) -> Json:
    instances = _named(cloud, body)
    ready = (Status.ACTIVE, Status.UNHEALTHY)
    if any(each.status not in ready for each in instances):
        raise ApiError(409, "global/conflict")
    for each in instances:
        each.restart(cloud.now(), cloud.settings.boot_seconds)
    return {"restarted_instances": [cloud.show(each) for each in instances]}


def _named(cloud: Cloud, body: Body) -> list[Instance]:
    ids = body.get("instance_ids")
    if not isinstance(ids, list) or not ids:
        raise ApiError(400, INVALID, "instance_ids is missing.")
    return [cloud.find(str(id_)) for id_ in ids]


def _keys(cloud: Cloud, _params: Params, _body: Body) -> list[Json]:
    return list(cloud.keys.values())


def _add_key(cloud: Cloud, _params: Params, body: Body) -> Json:
    name, public = body.get("name"), body.get("public_key")
    if not isinstance(name, str) or not 1 <= len(name) <= 64:
        raise ApiError(400, INVALID, "name is missing, or not of 1 to 64 characters.")
    if any(key["name"] == name for key in cloud.keys.values()):
        raise ApiError(400, cloud.settings.duplicate_key_code, f"The key {name} exists already.")
    if len(cloud.keys) >= KEY_LIMIT:
        raise ApiError(400, INVALID, f"There can be {KEY_LIMIT} keys.")
    private = None
    if public is None:
        private, public = _generate()
    key: Json = {"id": secrets.token_hex(16), "name": name, "public_key": str(public).strip()}
    cloud.keys[str(key["id"])] = key
    cloud.created_keys.append(str(key["id"]))
    return key if private is None else {**key, "private_key": private}


def _generate() -> tuple[str, str]:
    """Return a fresh key pair: private, public."""
    with TemporaryDirectory(prefix="cvl-key-") as folder:
        key = Path(folder, "key")
        generate(key)
        return key.read_text(), key.with_name("key.pub").read_text()


def _delete_key(cloud: Cloud, params: Params, _body: Body) -> Json:
    if cloud.keys.pop(params["id"], None) is None:
        raise ApiError(404, "global/not-found")
    return {}


def _file_systems(cloud: Cloud, _params: Params, _body: Body) -> list[Json]:
    used = {name for each in cloud.alive() for name in each.order.file_systems}
    return [{**each, "is_in_use": each["name"] in used} for each in cloud.file_systems.values()]


def _add_file_system(cloud: Cloud, _params: Params, body: Body) -> Json:
    name, region = body.get("name"), body.get("region")
    if not isinstance(name, str) or region not in catalog.REGIONS:
        raise ApiError(400, INVALID)
    if any(each["name"] == name for each in cloud.file_systems.values()):
        raise ApiError(400, "global/duplicate")
    made: Json = {
        "id": secrets.token_hex(16),
        "name": name,
        "mount_point": f"/lambda/nfs/{name}",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(cloud.utc())),
        "created_by": {"id": "1" * 32, "email": "me@example.com", "status": "active"},
        "is_in_use": False,
        "region": catalog.region(str(region)),
        "bytes_used": 0,
    }
    cloud.file_systems[str(made["id"])] = made
    return made


def _delete_file_system(cloud: Cloud, params: Params, body: Body) -> Json:
    found = [each for each in _file_systems(cloud, params, body) if each["id"] == params["id"]]
    if not found:
        raise ApiError(404, MISSING, "Filesystem was not found.")
    if found[0]["is_in_use"]:
        raise ApiError(400, "filesystems/filesystem-in-use", "The filesystem is in use.")
    del cloud.file_systems[params["id"]]
    return {"deleted_ids": [params["id"]]}


def _events(cloud: Cloud, _params: Params, _body: Body) -> list[Json]:
    return [
        {
            "service_name": "cloud",
            "resource_name": "ssh_key",
            "action": "created",
            "catalog_version": "2025-09-06",
            "event_id": key_id,
            "event_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(cloud.utc())),
            "actor_lrn": None,
            "resource_lrns": [f"lrn:cloud:ssh_key:{key_id}"],
            "resource_owner_lrn": f"lrn:cloud:account:{cloud.account}",
            "request_api_key_lrn": None,
            "additional_details": {},
        }
        for key_id in cloud.created_keys
    ]


OPERATIONS: Mapping[str, Callable[[Cloud, Params, Body], object]] = MappingProxyType(
    {
        "listInstanceTypes": _types,
        "listRegions": _regions,
        "listImages": _images,
        "listInstances": _list,
        "getInstance": _get,
        "postInstance": _rename,
        "launchInstance": _launch,
        "terminateInstance": _terminate,
        "restartInstance": _restart,
        "listSSHKeys": _keys,
        "addSSHKey": _add_key,
        "deleteSSHKey": _delete_key,
        "listFilesystems": _file_systems,
        "createFilesystem": _add_file_system,
        "filesystemDelete": _delete_file_system,
        "getAuditEvents": _events,
    }
)
