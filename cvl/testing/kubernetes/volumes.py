"""A pod's volumes: folders on this machine that are mounted into its containers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cvl.testing.kubernetes.engine_api import EngineApi
from cvl.testing.kubernetes.objects import Obj, meta, quantity
from cvl.testing.kubernetes.variables import ConfigError, data_of
from cvl.testing.kubernetes.world import World


class Volumes:
    """The volumes of one pod. Those in memory are the engine's own; the rest are folders."""

    def __init__(self, world: World, engine: EngineApi, folder: Path) -> None:
        """`folder` is the pod's, and goes with it."""
        self._world, self._engine, self._folder = world, engine, folder
        self._sources: dict[str, Mapping[str, Any]] = {}

    def prepare(self, pod: Obj) -> None:
        """Make them all. Raises `ConfigError` while something they need is not there."""
        for volume in pod["spec"].get("volumes") or []:
            if volume["name"] not in self._sources:
                try:
                    self._sources[volume["name"]] = self._made(pod, volume)
                except ConfigError as error:
                    raise ConfigError(f'"{volume["name"]}" : {error}') from error

    def mounts(self, container: Mapping[str, Any]) -> list[Obj]:
        """Return what the engine is told to mount into a container."""
        made = []
        for mount in container.get("volumeMounts") or []:
            source = dict(self._sources[mount["name"]])
            read_only = bool(mount.get("readOnly")) or bool(source.pop("ReadOnly", False))
            made.append({**source, "Target": mount["mountPath"], "ReadOnly": read_only})
        return made

    def memory(self) -> list[Obj]:
        """Return the mounts that keep what is in memory alive, whatever else ends."""
        return [{**each, "Target": f"/.cvl/{n}"} for n, each in enumerate(self._in_memory())]

    def close(self) -> None:
        """Remove them all."""
        for source in self._in_memory():
            self._engine.call("DELETE", f"/volumes/{source['Source']}", force="1")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _in_memory(self) -> list[Mapping[str, Any]]:
        return [source for source in self._sources.values() if source["Type"] == "volume"]

    def _made(self, pod: Obj, volume: Mapping[str, Any]) -> Mapping[str, Any]:
        name = volume["name"]
        if "emptyDir" in volume:
            return self._empty(pod, name, volume["emptyDir"])
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
        return {"Type": "volume", "Source": made}

    def _files(self, pod: Obj, volume: Mapping[str, Any]) -> Iterator[tuple[str, bytes, int]]:
        """Yield the files of a volume: path, content, mode."""
        told = volume.get("projected") or volume["secret"]
        for source in told.get("sources") or [{"secret": {**told, "name": told["secretName"]}}]:
            yield from self._secret(pod, source["secret"], told.get("defaultMode", 0o644))

    def _secret(
        self, pod: Obj, told: Mapping[str, Any], mode: int
    ) -> Iterator[tuple[str, bytes, int]]:
        optional = bool(told.get("optional"))
        data = data_of(self._world.store, meta(pod)["namespace"], told["name"], optional=optional)
        for item in told.get("items") or [{"key": key, "path": key} for key in data]:
            if item["key"] in data:
                yield item["path"], data[item["key"]], item.get("mode", mode)
            elif not optional:
                raise ConfigError(f"references non-existent secret key: {item['key']}")
