"""A pod's volumes: folders on this machine that are mounted into its containers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cvl.testing.kubernetes.engine_api import EngineApi
from cvl.testing.kubernetes.objects import Obj, at, meta, quantity
from cvl.testing.kubernetes.resources import CLAIMS, CONFIGMAPS, SECRETS
from cvl.testing.kubernetes.variables import ConfigError, data_of, expand, field_of, resource_of
from cvl.testing.kubernetes.world import World

SERVICE_ACCOUNT = "serviceAccountToken"


class Volumes:
    """The volumes of one pod. Those in memory are the engine's own; the rest are folders."""

    def __init__(self, world: World, engine: EngineApi, folder: Path, claims: Path) -> None:
        """`folder` is the pod's, and goes with it; `claims` outlive it."""
        self._world, self._engine = world, engine
        self._folder, self._claims = folder, claims
        self._sources: dict[str, Mapping[str, Any]] = {}
        self._in_memory: list[str] = []

    def prepare(self, pod: Obj) -> None:
        """Make them all. Raises `ConfigError` while something they need is not there."""
        for volume in pod["spec"].get("volumes") or []:
            if volume["name"] not in self._sources:
                try:
                    self._sources[volume["name"]] = self._made(pod, volume)
                except ConfigError as error:
                    raise ConfigError(f'"{volume["name"]}" : {error}') from error

    def mounts(self, container: Mapping[str, Any], known: Mapping[str, str]) -> list[Obj]:
        """Return what the engine is told to mount into a container."""
        made = []
        for mount in container.get("volumeMounts") or []:
            source = dict(self._sources[mount["name"]])
            path = mount.get("subPath") or expand(mount.get("subPathExpr") or "", known)
            if path and source["Type"] == "bind":
                source["Source"] = self._below(source["Source"], path)
            read_only = bool(mount.get("readOnly")) or bool(source.pop("ReadOnly", False))
            made.append({**source, "Target": mount["mountPath"], "ReadOnly": read_only})
        return made

    def memory(self) -> list[Obj]:
        """Return the mounts that keep what is in memory alive, whatever else ends."""
        named = [source for source in self._sources.values() if source["Type"] == "volume"]
        return [{**each, "Target": f"/.cvl/{n}"} for n, each in enumerate(named)]

    def close(self) -> None:
        """Remove them all."""
        for name in self._in_memory:
            self._engine.call("DELETE", f"/volumes/{name}", force="1")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _below(self, source: str, path: str) -> str:
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise ConfigError(f"subPath must be a relative path without '..': {path}")
        below = Path(source) / path
        if not below.exists():
            below.mkdir(parents=True)
            below.chmod(0o777)
        return str(below)

    def _made(self, pod: Obj, volume: Mapping[str, Any]) -> Mapping[str, Any]:
        name = volume["name"]
        if "emptyDir" in volume:
            return self._empty(pod, name, volume["emptyDir"])
        if "hostPath" in volume:
            return self._host(volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            return self._claim(pod, volume["persistentVolumeClaim"])
        folder = self._place(name)
        for path, data, mode in self._files(pod, volume):
            file = folder / path
            if not file.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"invalid path: {path}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(mode)
        return {"Type": "bind", "Source": str(folder), "ReadOnly": True}

    def _place(self, name: str) -> Path:
        folder = self._folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _empty(self, pod: Obj, name: str, told: Mapping[str, Any]) -> Mapping[str, Any]:
        if told.get("medium") != "Memory":
            folder = self._place(name)
            folder.chmod(0o777)
            return {"Type": "bind", "Source": str(folder)}
        made = f"cvl-{meta(pod)['uid'][:8]}-{name}"
        size = f"size={int(quantity(told['sizeLimit']))}" if told.get("sizeLimit") else "size=50%"
        options = {"type": "tmpfs", "device": "tmpfs", "o": f"{size},mode=1777"}
        self._engine.do("POST", "/volumes/create", {"Name": made, "DriverOpts": options})
        self._in_memory.append(made)
        return {"Type": "volume", "Source": made}

    def _host(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        path, kind = Path(told["path"]), told.get("type") or ""
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        if kind and not path.exists():
            raise ConfigError(f"hostPath type check failed: {path} is not a {kind.lower()}")
        return {"Type": "bind", "Source": str(path)}

    def _claim(self, pod: Obj, told: Mapping[str, Any]) -> Mapping[str, Any]:
        space, name = meta(pod)["namespace"], told["claimName"]
        claim = self._world.store.find(CLAIMS, space, name)
        if claim is None:
            raise ConfigError(f'persistentvolumeclaim "{name}" not found')
        folder = self._claims / meta(claim)["uid"]
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        if at(claim, "status", "phase") != "Bound":
            self._world.store.update(
                CLAIMS, space, name, lambda obj: obj["status"].update(phase="Bound")
            )
        return {"Type": "bind", "Source": str(folder), "ReadOnly": bool(told.get("readOnly"))}

    def _files(self, pod: Obj, volume: Mapping[str, Any]) -> list[tuple[str, bytes, int]]:
        """Return the files of a volume: path, content, mode."""
        if "projected" in volume:
            told = volume["projected"]
            found: list[tuple[str, bytes, int]] = []
            for source in told.get("sources") or []:
                found += self._source(pod, source, told.get("defaultMode", 0o644))
            return found
        kind = next((key for key in ("secret", "configMap", "downwardAPI") if key in volume), "")
        if not kind:
            raise ConfigError(f"volumes of this kind are not supported: {sorted(volume)}")
        told = dict(volume[kind])
        told.setdefault("name", told.pop("secretName", None))
        return self._source(pod, {kind: told}, told.get("defaultMode", 0o644))

    def _source(
        self, pod: Obj, source: Mapping[str, Any], mode: int
    ) -> list[tuple[str, bytes, int]]:
        if SERVICE_ACCOUNT in source:
            from cvl.testing.kubernetes.access import account

            name = at(pod, "spec", "serviceAccountName") or "default"
            token = self._world.tokens.issue(account(meta(pod)["namespace"], name))
            return [(source[SERVICE_ACCOUNT]["path"], token.encode(), mode)]
        if "downwardAPI" in source:
            return [
                (item["path"], _downward(pod, item), item.get("mode", mode))
                for item in source["downwardAPI"].get("items") or []
            ]
        resource = SECRETS if "secret" in source else CONFIGMAPS
        told = source["secret" if resource is SECRETS else "configMap"]
        data = data_of(
            self._world.store,
            resource,
            meta(pod)["namespace"],
            told["name"],
            optional=bool(told.get("optional")),
        )
        items = told.get("items")
        if items is None:
            return [(key, value, mode) for key, value in data.items()]
        missing = [each["key"] for each in items if each["key"] not in data]
        if missing and not told.get("optional"):
            raise ConfigError(f"references non-existent {resource.kind.lower()} key: {missing[0]}")
        return [
            (item["path"], data[item["key"]], item.get("mode", mode))
            for item in items
            if item["key"] in data
        ]


def _downward(pod: Obj, item: Mapping[str, Any]) -> bytes:
    if "fieldRef" in item:
        return os.fsencode(field_of(pod, item["fieldRef"]["fieldPath"]))
    told = item["resourceFieldRef"]
    named = [each for each in pod["spec"]["containers"] if each["name"] == told["containerName"]]
    return resource_of(named[0] if named else {}, told).encode()
