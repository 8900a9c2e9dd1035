"""Settings, in one order: flag > environment > project `cvl.toml` > user `cvl.toml` > default.

The flag and the default belong to the caller. The environment's name for an option is `CVL_` and
its name in capitals. The user's file is `$XDG_CONFIG_HOME/cvl/cvl.toml`; the project's is the
nearest one in the current folder or a parent of it, and says little (`project.py`). Options for
all runners stand at the top of a file, those of one runner below `[runner.NAME]`; `default` below
`[runner]` names one. A path in a file is relative to that file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cvl.cli.config_file import FILE, Layer, Value, content, layer
from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass

if TYPE_CHECKING:
    from cvl.cli.project_config import Own

OPTIONS = frozenset(
    {
        "accept_new_host_key",
        "fetch_limit",
        "grace",
        "keep_connection",
        "max_cost",
        "output",
        "root",
        "runner",
        "ssh_config",
        "state_dir",
        "timeout",
        "timeout_action",
    }
)
"""What may stand at the top of a file. Each reader knows its own type."""

YES, NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off", ""})
SHOWN = 12
"""Unknown options of one file that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value, and where it was said: `$CVL_ROOT` or a file's path. `base` is for paths."""

    value: Value
    origin: str
    base: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the environment and the files say, nearest first."""

    cwd: Path
    environ: Mapping[str, str]
    layers: tuple[Layer, ...] = ()
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
        return next(iter(self._said(name)), None)

    def every(self, name: str) -> list[Setting]:
        """Return what counts together where the lowest does: the environment's, or all files'."""
        given = self._environment(name)
        return [given] if given else self._said(name)

    def find_own(self, runner: str, name: str) -> Setting | None:
        """Return the setting of one runner's own option, None where nobody says."""
        found = [_setting(each, each.runners.get(runner, {}), name) for each in self.layers]
        return self._environment(name) or next(filter(None, found), None)

    def get(self, name: str) -> Value | None:
        """Return the value of an option for all runners, as it was written."""
        found = self.find(name)
        return found.value if found else None

    def text(self, name: str) -> str | None:
        """Return an option that is one word or number, as text."""
        value = self.get(name)
        if isinstance(value, tuple | bool):
            raise self._wrong(name, "text")
        return None if value is None else str(value)

    def switch(self, name: str) -> bool | None:
        """Return an option that is on or off."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return value
        word = str(value).lower()
        if word not in YES | NO:
            raise self._wrong(name, "true or false")
        return word in YES

    def path(self, name: str) -> Path | None:
        """Return an option that is a path: absolute, `~` expanded."""
        found = self.find(name)
        return self.path_of(name, found) if found else None

    def path_of(self, name: str, found: Setting) -> Path:
        """Return a setting that is a path: absolute, `~` expanded. Raises `UsageError`."""
        if not isinstance(found.value, str) or not found.value or "\0" in found.value:
            raise self._wrong(name, "a path")
        return found.base / os.path.expanduser(found.value)  # noqa: PTH111 - an unknown ~user stays

    def runner(self, name: str, options: Iterable[str] = ()) -> Mapping[str, Value]:
        """Return one runner's own options; for those named in `options` the environment counts."""
        said: dict[str, Value] = {}
        for each in reversed(self.layers):
            said.update(each.runners.get(name, {}))
        for option in options:
            if found := self._environment(option):
                said[option] = found.value
        return said

    def _said(self, name: str) -> list[Setting]:
        found = [_setting(each, each.options, name) for each in self.layers]
        return [each for each in found if each]

    def _environment(self, name: str) -> Setting | None:
        variable = f"CVL_{name.upper()}"
        value = self.environ.get(variable, "")
        return Setting(value=value, origin=f"${variable}", base=self.cwd) if value else None

    def _wrong(self, name: str, wanted: str) -> UsageError:
        found = self.find(name)
        where = found.origin if found else ""
        return UsageError(f"{where}: {name} must be {wanted}, not {found and found.value!r}")


def load(cwd: Path, environ: Mapping[str, str]) -> Config:
    """Read the project's and the user's file, where there are any.

    Raises `UsageError`, with path and line, for a file that cannot be read.
    """
    user, passed_over = user_layer(environ), list[str]()
    project_config = _project(cwd, environ, user, passed_over)
    layers = tuple(each for each in (project_config, user) if each)
    return Config(cwd=cwd, environ=environ, layers=layers, passed_over=tuple(passed_over))


def user_layer(environ: Mapping[str, str]) -> Layer | None:
    """Read the user's own file, where there is one. Raises `UsageError`."""
    home = user_file(environ)
    there = home is not None and os.path.lexists(home)
    return _known(layer(home, content(home))) if home and there else None


def own(user: Layer | None, environ: Mapping[str, str]) -> Own:
    """Return what the user's own files name."""
    from cvl.cli.project_config import Own

    def aliases() -> frozenset[str]:
        from cvl.transports.ssh.aliases import aliases as named

        return named(environ)

    return Own(layer=user, aliases=aliases)


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Return where the user's file is or would be; None without a home folder."""
    home = environ.get("HOME", "")
    folder = environ.get("XDG_CONFIG_HOME", "") or (f"{home}/.config" if home else "")
    # the XDG specification: a relative path there is invalid and to be ignored
    return Path(folder) / "cvl" / FILE if folder.startswith("/") else None


def _project(
    cwd: Path, environ: Mapping[str, str], user: Layer | None, passed_over: list[str]
) -> Layer | None:
    if not any(os.path.lexists(folder / FILE) for folder in (cwd, *cwd.parents)):
        return None
    from cvl.cli import project_config

    home = user_file(environ)
    found = project_config.nearest(cwd, home, passed_over.append)
    if found is None:
        return None
    said = _known(layer(found.path, found.data))
    return project_config.admitted(found, said, own(user, environ), home)


def _known(said: Layer) -> Layer:
    """Return what a file says without what there is no such option for, and warnings of that."""
    unknown = [key for key in said.options if key not in OPTIONS]
    warnings = [
        f"{said.path}: {key[:60]!r} is ignored: there is no such option{_near(key)}"
        for key in unknown[:SHOWN]
    ]
    if len(unknown) > SHOWN:
        warnings.append(f"{said.path}: {len(unknown) - SHOWN} more such are ignored")
    return Layer(
        path=said.path,
        options={key: value for key, value in said.options.items() if key in OPTIONS},
        runners=said.runners,
        warnings=tuple(warnings),
    )


def _near(key: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key.replace("-", "_"), OPTIONS, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _setting(said: Layer, table: Mapping[str, Value], name: str) -> Setting | None:
    if name not in table:
        return None
    return Setting(value=table[name], origin=str(said.path), base=said.path.parent)
