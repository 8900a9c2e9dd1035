"""Settings, in one order: flag > environment > project `cvl.toml` > user `cvl.toml` > default.

The flag and the default belong to the caller. The environment's name for an option is `CVL_` and
its name in capitals. The user's file is `$XDG_CONFIG_HOME/cvl/cvl.toml`, or in `$CVL_CONFIG_DIR`;
the project's is the nearest one in the current folder or a parent of it, and says little. What
there is to say is the table of `providers/common.py` and each runner's signature. Options for
all runners stand at the top of a file, those of one runner below `[runner.NAME]`; `default` below
`[runner]` names one. A path in a file is relative to that file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cvl.cli.config_file import FILE, Layer, Value, content, layer
from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.paths import absolute


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value, what it is called there, and where: `$CVL_ROOT`, or a file. `base` is for paths."""

    name: str
    value: Value
    origin: str
    base: Path

    def text(self) -> str:
        """Return a setting that is one word or number, as text. Raises `UsageError`."""
        if isinstance(self.value, tuple | bool):
            raise self.wrong("text")
        return str(self.value)

    def path(self) -> Path:
        """Return a setting that is a path: absolute, `~` expanded. Raises `UsageError`."""
        if not isinstance(self.value, str) or not self.value or "\0" in self.value:
            raise self.wrong("a path")
        return self.base / os.path.expanduser(self.value)  # noqa: PTH111 - an unknown ~user stays

    def wrong(self, wanted: str) -> UsageError:
        """Return an error that says whose this is."""
        return UsageError(f"{self.origin}: {self.name} must be {wanted}, not {self.value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the environment and the files say, nearest first.

    `layers` has what counts of the `files`.
    """

    cwd: Path
    environ: Mapping[str, str]
    layers: tuple[Layer, ...] = ()
    files: tuple[Layer, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was ignored, in sentences for a person."""
        return (*self.passed_over, *(text for layer in self.layers for text in layer.warnings))

    def find(self, name: str) -> Setting | None:
        """Return the setting of an option for all runners, None where nobody says."""
        return self._environment(name) or self.configured(name)

    def configured(self, name: str) -> Setting | None:
        """As `find`, of the files alone."""
        return next(iter(self._in_files(name)), None)

    def every(self, name: str) -> list[Setting]:
        """Return what counts together where the lowest does: the environment's, or all files'."""
        setting = self._environment(name)
        return [setting] if setting else self._in_files(name)

    def find_own(self, runner: str, name: str) -> Setting | None:
        """Return the setting of one runner's own option, None where nobody says."""
        key = ("runner", runner, name)
        settings = (_setting(each, each.runners.get(runner, {}), key) for each in self.layers)
        return self._environment(name) or next(filter(None, settings), None)

    def runner(self, name: str) -> Mapping[str, Value]:
        """Return one runner's own options, as the files say."""
        options: dict[str, Value] = {}
        for each in reversed(self.layers):
            options.update(each.runners.get(name, {}))
        return options

    def _in_files(self, name: str) -> list[Setting]:
        settings = (_setting(each, each.options, (name,)) for each in self.layers)
        return [each for each in settings if each]

    def _environment(self, name: str) -> Setting | None:
        variable = f"CVL_{name.upper()}"
        if not (value := self.environ.get(variable, "")):
            return None
        return Setting(name=name, value=value, origin=f"${variable}", base=self.cwd)


def load(cwd: Path, environ: Mapping[str, str]) -> Config:
    """Read the project's and the user's file, where there are any.

    Raises `UsageError`, with path and line, for a file that cannot be read.
    """
    user, passed_over = user_layer(environ), list[str]()
    project, counts = _project(cwd, environ, user, passed_over)
    return Config(
        cwd=cwd,
        environ=environ,
        layers=tuple(each for each in (counts, user) if each),
        files=tuple(each for each in (project, user) if each),
        passed_over=tuple(passed_over),
    )


def user_layer(environ: Mapping[str, str]) -> Layer | None:
    """Read the user's own file, where there is one. Raises `UsageError`."""
    home = user_file(environ)
    there = home is not None and os.path.lexists(home)
    return layer(home, content(home)) if home and there else None


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Return where the user's file is or would be; None without a home folder."""
    if given := environ.get("CVL_CONFIG_DIR"):
        return absolute(given) / FILE
    home = environ.get("HOME", "")
    folder = environ.get("XDG_CONFIG_HOME", "") or (f"{home}/.config" if home else "")
    # the XDG specification: a relative path there is invalid and to be ignored
    return Path(folder) / "cvl" / FILE if folder.startswith("/") else None


def _project(
    cwd: Path, environ: Mapping[str, str], user: Layer | None, passed_over: list[str]
) -> tuple[Layer | None, Layer | None]:
    """Return what the project's file says, and what counts of it."""
    if not any(os.path.lexists(folder / FILE) for folder in (cwd, *cwd.parents)):
        return None, None
    from cvl.cli import project_config

    home = user_file(environ)
    project = project_config.nearest(cwd, home, passed_over.append)
    if project is None:
        return None, None
    said, own = layer(project.path, project.data), project_config.Own(layer=user, environ=environ)
    return said, project_config.admitted(project, said, own, home)


def _setting(said: Layer, table: Mapping[str, Value], key: tuple[str, ...]) -> Setting | None:
    if key[-1] not in table:
        return None
    value, name = table[key[-1]], ".".join(key)
    return Setting(name=name, value=value, origin=str(said.path), base=said.path.parent)
