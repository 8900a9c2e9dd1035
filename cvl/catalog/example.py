"""An example: a folder with an example.yaml, as one frozen value."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from cvl.catalog.preset import Preset, Say, is_false, read_presets, stripped, texts
from cvl.catalog.root import TYPES
from cvl.core.frozen import dataclass
from cvl.core.spec import Needs

READMES = ("README.md", "README.rst", "README.txt", "README", "readme.md", "Readme.md")
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?(?:[eE]\d{1,3})?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong in a file: which one, which line (from 1), what."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What an example.yaml says, and where it lies.

    `path` is relative to `root`, `/`-separated, "" for the root itself. `image` is what the file
    names, "" if nothing; `resources` is as in the file.
    """

    name: str
    path: str
    root: Path
    type: str = "example"
    capability: str = ""
    stability: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""
    presets: Mapping[str, Preset]
    image: str = ""
    needs: Needs
    resources: Mapping[str, object]
    readme: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the scripts lie and run."""
        return self.root / self.path


ARCHS = {"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64"}
"""Names of processors, as files write them -> Docker's."""


def read_example(root: Path, path: str, data: Mapping[str, object], say: Say) -> Example:
    """Make an example of a document's data, whatever its fields hold; `say` hears what is odd."""
    folder = f"{root}/{path}"
    presets = read_presets(data.get("presets"), folder, say)
    readme = next((name for name in READMES if _has(folder, name)), None)
    return Example(
        name=stripped(data.get("name")) or path.rpartition("/")[2] or root.name,
        path=path,
        root=root,
        type=TYPES.get(path.partition("/")[0], "example"),
        capability=stripped(data.get("capability")),
        stability=stripped(data.get("stability")),
        tags=texts(data.get("tags")),
        description=stripped(data.get("description")),
        presets=presets,
        image=stripped(data.get("image")) or _docker_image(data.get("docker")),
        needs=_needs(data, docker=_wants_docker(data.get("docker"), presets, folder)),
        resources=MappingProxyType(_mapping(data.get("resources"))),
        readme=root / path / readme if readme else None,
    )


def needs_of(example: Example, preset: Preset) -> Needs:
    """Return what this preset asks of a machine: the example's needs, less Docker if it says so."""
    return example.needs if preset.docker else replace(example.needs, docker=False)


def _wants_docker(key: object, presets: Mapping[str, Preset], folder: str) -> bool:
    if is_false(key):
        return False
    build = presets.get("build")
    return key is not None or (build is not None and build.docker) or _has(folder, "Dockerfile")


def _docker_image(docker: object) -> str:
    if isinstance(docker, dict):
        return stripped(docker.get("image"))
    return "" if is_false(docker) or stripped(docker).lower() == "true" else stripped(docker)


def _needs(data: Mapping[str, object], *, docker: bool) -> Needs:
    """Gather what is asked for, wherever it stands: files do not agree on the place."""
    resources, hardware = _mapping(data.get("resources")), _mapping(data.get("hardware"))
    container, gpu = _mapping(data.get("docker")), _mapping(resources.get("gpu"))
    vram = _first(
        resources.get("vram_gb"),
        gpu.get("vram_gb"),
        container.get("vram_gb"),
        hardware.get("min_vram_gb"),
    )
    return Needs(
        gpus=_gpus(resources, gpu, container, hardware, vram),
        vram_gb=vram,
        cpus=_first(resources.get("cpu_cores")),
        ram_gb=_first(resources.get("ram_gb"), hardware.get("min_ram_gb")),
        disk_gb=_first(resources.get("disk_gb")),
        docker=docker,
        archs=_archs(resources.get("arch"), resources.get("platform"), container.get("platform")),
    )


def _archs(*values: object) -> tuple[str, ...]:
    """Return the processors that a file names, as Docker calls them: one, or a list of several."""
    words = [word for value in values for word in texts(value)]
    names = {part.strip().lower() for word in words for part in word.split("/")}
    return tuple(sorted({ARCHS[name] for name in names & ARCHS.keys()}))


def _gpus(
    resources: Mapping[str, object],
    gpu: Mapping[str, object],
    container: Mapping[str, object],
    hardware: Mapping[str, object],
    vram: float,
) -> int:
    """Count GPUs. An outright number counts, 0 too; else one if anything says that it is needed."""
    for amount in (resources.get("gpu"), gpu.get("count"), resources.get("gpu_count")):
        if (count := _amount(amount)) is not None:
            return math.ceil(count)
    flags = (resources.get("gpu"), container.get("gpu"), hardware.get("gpu_required"))
    return int(vram > 0 or any(str(flag).lower() in {"required", "true"} for flag in flags))


def _first(*values: object) -> float:
    return next((amount for value in values if (amount := _amount(value)) is not None), 0)


def _amount(value: object) -> float | None:
    """Read a number, or the number that a text like `16 GB` starts with; never a negative one."""
    if isinstance(value, str):
        match = _AMOUNT.match(value)
        value = float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return max(value, 0) if math.isfinite(value) else None


def _has(folder: str, name: str) -> bool:
    return os.path.isfile(f"{folder}/{name}")  # noqa: PTH113 - a third of the time of Path


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
