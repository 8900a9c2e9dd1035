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
from collections.abc import Callable, Mapping
from pathlib import Path

from cvl.cli.config_file import FILE, Key, Layer, Value, content, layer
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

    `layers` has what counts of the `files`; `warnings` what was ignored, for a person.
    """

    cwd: Path
    environ: Mapping[str, str]
    layers: tuple[Layer, ...] = ()
    files: tuple[Layer, ...] = ()
    warnings: tuple[str, ...] = ()

    def find(self, *key: str) -> Setting | None:
        """Return the setting of an option, None where nobody says."""
        return self._environment(key[-1]) or self.configured(*key)

    def configured(self, *key: str) -> Setting | None:
        """As `find`, of the files alone."""
        return next(iter(self._in_files(key)), None)

    def every(self, name: str) -> list[Setting]:
        """Return what counts together where the lowest does: the environment's, or all files'."""
        setting = self._environment(name)
        return [setting] if setting else self._in_files((name,))

    def runner(self, name: str) -> Mapping[str, Value]:
        """Return one runner's own options, as the files say."""
        said = (item for each in reversed(self.layers) for item in each.values.items())
        return {key[2]: value for key, value in said if key[:-1] == ("runner", name)}

    def _in_files(self, key: Key) -> list[Setting]:
        return [
            Setting(
                name=".".join(key),
                value=each.values[key],
                origin=str(each.path),
                base=each.path.parent,
            )
            for each in self.layers
            if key in each.values
        ]

    def _environment(self, name: str) -> Setting | None:
        variable = f"CVL_{name.upper()}"
        if not (value := self.environ.get(variable, "")):
            return None
        return Setting(name=name, value=value, origin=f"${variable}", base=self.cwd)


def load(cwd: Path, environ: Mapping[str, str]) -> Config:
    """Read the project's and the user's file, where there are any.

    Raises `UsageError`, with path and line, for a file that cannot be read.
    """
    user, warnings = user_layer(environ), list[str]()
    project, counts = _project(cwd, environ, user, warnings.append)
    return Config(
        cwd=cwd,
        environ=environ,
        layers=tuple(each for each in (counts, user) if each),
        files=tuple(each for each in (project, user) if each),
        warnings=tuple(warnings),
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
    cwd: Path, environ: Mapping[str, str], user: Layer | None, warn: Callable[[str], None]
) -> tuple[Layer | None, Layer | None]:
    """Return what the project's file says, and what counts of it."""
    if not any(os.path.lexists(folder / FILE) for folder in (cwd, *cwd.parents)):
        return None, None
    from cvl.cli import project_config

    home = user_file(environ)
    project = project_config.nearest(cwd, home, warn)
    if project is None:
        return None, None
    said, own = layer(project.path, project.data), project_config.Own(layer=user, environ=environ)
    refused = project_config.refused(project, said, own)
    if refused:
        warn(project_config.not_counted(project, refused, home))
    return said, project_config.admitted(project, said, refused)
