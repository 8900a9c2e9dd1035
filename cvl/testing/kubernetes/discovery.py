"""What a client asks before it asks anything: versions, groups, resources, OpenAPI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from cvl.testing.kubernetes.objects import Obj
from cvl.testing.kubernetes.openapi_v2 import encoded
from cvl.testing.kubernetes.requests import Reply, Request, json_reply
from cvl.testing.kubernetes.resources import RESOURCES, Resource
from cvl.testing.kubernetes.schema import Document
from cvl.testing.kubernetes.statuses import no_such_path

VERSION = "v1.31.0"
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
OPEN = ("/healthz", "/livez", "/readyz", "/version")
"""What is told to everybody."""

_SUB_KINDS: Mapping[str, tuple[str, str]] = {
    "log": ("Pod", "get"),
    "exec": ("PodExecOptions", "create get"),
    "attach": ("PodAttachOptions", "create get"),
    "eviction": ("Eviction", "create"),
    "token": ("TokenRequest", "create"),
    "status": ("", "get patch update"),
}


def discover(request: Request, document: Document | None, server: str) -> Reply | None:
    """Return what a discovery path tells, None if it is no such path. Raises `ApiError` 404."""
    route = request.route.rstrip("/") or "/"
    if route.startswith(OPEN[:3]):
        return Reply(status=200, body=b"ok", type="text/plain; charset=utf-8")
    if route.startswith("/openapi"):
        return _openapi(request, document)
    answer = _told(route.strip("/").split("/"), server)
    return json_reply(answer) if answer is not None else None


def _told(parts: list[str], server: str) -> Obj | None:
    match parts:
        case ["version"]:
            return _version()
        case ["api"]:
            return _versions(server)
        case ["apis"]:
            return _groups()
        case ["apis", group]:
            return _group(group)
        case ["api", "v1"] | ["apis", _, _]:
            return _resources("/".join(parts[1:]))
    return None


def _version() -> Obj:
    major, minor, _ = VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": VERSION,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2024-08-13T00:00:00Z",
        "goVersion": "go1.22.5",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def _versions(server: str) -> Obj:
    where = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": where}


def _groups() -> Obj:
    groups = []
    for group in dict.fromkeys(each.group for each in RESOURCES if each.group):
        version = {"groupVersion": f"{group}/v1", "version": "v1"}
        groups.append({"name": group, "versions": [version], "preferredVersion": version})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _group(name: str) -> Obj:
    found = next((each for each in _groups()["groups"] if each["name"] == name), None)
    if found is None:
        raise no_such_path()
    return {"kind": "APIGroup", "apiVersion": "v1", **found}


def _resources(group_version: str) -> Obj:
    found = [each for each in RESOURCES if each.api_version == group_version]
    if not found:
        raise no_such_path()
    listed = [line for resource in found for line in _lines(resource)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": listed,
    }


def _lines(resource: Resource) -> list[Obj]:
    line: Obj = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short:
        line["shortNames"] = list(resource.short)
    if resource.category:
        line["categories"] = ["all"]
    lines = [line]
    for part in resource.subresources:
        kind, verbs = _SUB_KINDS[part]
        lines.append(
            {
                "name": f"{resource.plural}/{part}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind or resource.kind,
                "verbs": verbs.split(),
            }
        )
    return lines


def _openapi(request: Request, document: Document | None) -> Reply:
    route = request.route.rstrip("/")
    if route == "/openapi/v2":
        return _second(request, document)
    if route == "/openapi/v3":
        names = dict.fromkeys(each.api_version for each in RESOURCES)
        paths = {
            _place(name): {"serverRelativeURL": f"/openapi/v3/{_place(name)}"} for name in names
        }
        return json_reply({"paths": paths})
    place = route.removeprefix("/openapi/v3/")
    for resource in RESOURCES:
        if _place(resource.api_version) == place:
            return Reply(status=200, body=_third(resource.api_version, document))
    raise no_such_path()


def _second(request: Request, document: Document | None) -> Reply:
    """Return the OpenAPI v2 document; an empty one, which checks nothing, if we have none.

    kubectl asks for that where the server does not check a kind itself: `List`.
    """
    wanted = request.headers.get("accept", "")
    definitions = document.definitions if document else {}
    if PROTOBUF in wanted:
        body = encoded(definitions, "Kubernetes", VERSION)
        return Reply(status=200, body=body, type=PROTOBUF.replace("@", "."))
    about = {"title": "Kubernetes", "version": VERSION}
    return json_reply({"swagger": "2.0", "info": about, "paths": {}, "definitions": definitions})


def _place(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"


@cache
def _third(version: str, document: Document | None) -> bytes:
    """Return an OpenAPI v3 document: what the official v2 one says, as far as clients look."""
    resources = [each for each in RESOURCES if each.api_version == version]
    paths = {_path(each): {"patch": _patch(each), "post": _patch(each)} for each in resources}
    made = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {"schemas": _schemas(document)},
    }
    return json.dumps(made).encode()


def _path(resource: Resource) -> str:
    space = "namespaces/{namespace}/" if resource.namespaced else ""
    return f"/{_place(resource.api_version)}/{space}{resource.plural}/{{name}}"


def _patch(resource: Resource) -> Obj:
    text = {"type": "string", "uniqueItems": True}
    named = ("dryRun", "fieldManager", "fieldValidation", "force")
    group, version = resource.group, resource.version
    return {
        "parameters": [{"name": name, "in": "query", "schema": text} for name in named],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-group-version-kind": {
            "group": group, "version": version, "kind": resource.kind,
        },
    }  # fmt: skip


def _schemas(document: Document | None) -> Mapping[str, Any]:
    if document is None:
        return {}
    text = json.dumps(document.definitions).replace("#/definitions/", "#/components/schemas/")
    schemas: Mapping[str, Any] = json.loads(text)
    return schemas
