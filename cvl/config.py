"""Settings, in one order: flag > environment > project `cvl.toml` > user `cvl.toml` > default.

The flag and the default belong to the caller. The environment's name for an option is `CVL_` and
its name in capitals. The project's file is the nearest one in the current folder or a parent of
it; the user's is `$XDG_CONFIG_HOME/cvl/cvl.toml`. Options for all runners stand at the top of a
file, those of one runner below `[runner.NAME]`; `default` below `[runner]` names one. A path in a
file is relative to that file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cvl.errors import UsageError
from cvl.values import dataclass

FILE = "cvl.toml"

Value = str | int | float | bool | tuple[str, ...]

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

USER_ONLY = frozenset({"accept_new_host_key", "ssh_config", "state_dir", "timeout_action"})
"""What a project's file may not decide: a checkout of somebody else's must not be able to."""

YES, NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value, and where it was said: `$CVL_ROOT` or a file's path. `base` is for paths."""

    value: Value
    origin: str
    base: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One file as it was read."""

    path: Path
    options: Mapping[str, Value]
    runners: Mapping[str, Mapping[str, Value]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the environment and the files say, nearest first."""

    cwd: Path
    environ: Mapping[str, str]
    layers: tuple[Layer, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was ignored, in sentences for a person."""
        return tuple(warning for layer in self.layers for warning in layer.warnings)

    def find(self, name: str) -> Setting | None:
        """Return the setting of an option for all runners, None where nobody says."""
        return self._environment(name) or self.configured(name)

    def configured(self, name: str) -> Setting | None:
        """As `find`, of the files alone."""
        for layer in self.layers:
            if name in layer.options:
                return Setting(
                    value=layer.options[name], origin=str(layer.path), base=layer.path.parent
                )
        return None

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
        if found is None:
            return None
        if not isinstance(found.value, str) or not found.value:
            raise self._wrong(name, "a path")
        return found.base / os.path.expanduser(found.value)  # noqa: PTH111 - an unknown ~user stays

    def runner(self, name: str, options: Iterable[str] = ()) -> Mapping[str, Value]:
        """Return one runner's own options; for those named in `options` the environment counts."""
        said: dict[str, Value] = {}
        for layer in reversed(self.layers):
            said.update(layer.runners.get(name, {}))
        for option in options:
            if found := self._environment(option):
                said[option] = found.value
        return said

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
    project, user = _nearest(cwd), user_file(environ)
    layers = [_read(project, project=True)] if project and project != user else []
    if user and os.path.isfile(user):  # noqa: PTH113
        layers.append(_read(user, project=False))
    return Config(cwd=cwd, environ=environ, layers=tuple(layers))


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Return where the user's file is or would be; None without a home folder."""
    home = environ.get("HOME", "")
    folder = environ.get("XDG_CONFIG_HOME", "") or (f"{home}/.config" if home else "")
    # the XDG specification: a relative path there is invalid and to be ignored
    return Path(folder) / "cvl" / FILE if folder.startswith("/") else None


def _nearest(cwd: Path) -> Path | None:
    for folder in (cwd, *cwd.parents):
        if os.path.isfile(path := folder / FILE):  # noqa: PTH113 - no error where it is forbidden
            return path
    return None


def _read(path: Path, *, project: bool) -> Layer:
    tables = _parse(path)
    runners = tables.pop("runner", {})
    if isinstance(runners, str):
        runners = {"default": runners}
    if isinstance(runners, dict) and isinstance(runners.get("default"), str):
        tables["runner"] = runners.pop("default")
    if not isinstance(runners, dict) or not all(isinstance(own, dict) for own in runners.values()):
        raise UsageError(f"{path}: runner must hold one table for each runner", "[runner.NAME]")
    ignored = {key: why for key in tables if (why := _ignored(key, project=project))}
    return Layer(
        path=path,
        options={k: _value(path, k, value) for k, value in tables.items() if k not in ignored},
        runners={
            name: {key: _value(path, f"runner.{name}.{key}", value) for key, value in own.items()}
            for name, own in runners.items()
        },
        warnings=tuple(f"{path}: {key!r} is ignored: {why}" for key, why in ignored.items()),
    )


def _parse(path: Path) -> dict[str, object]:
    import tomllib

    data = b""
    try:
        data = path.read_bytes()
        return tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}:{line}: not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        # "what (at line 3, column 7)", or "what (at end of document)"
        what, _, place = str(error).rpartition(" (at ")
        word = place.removeprefix("line ").partition(",")[0]
        line = int(word) if word.isdigit() else len(data.splitlines())
        raise UsageError(f"{path}:{line}: {what}", "the file must be TOML: name = value") from error


def _ignored(key: str, *, project: bool) -> str:
    if key not in OPTIONS:
        return f"there is no such option{_near(key)}"
    return f"it counts only in the user's own {FILE}" if project and key in USER_ONLY else ""


def _near(key: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key.replace("-", "_"), OPTIONS, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _value(path: Path, name: str, value: object) -> Value:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if isinstance(value, str | int | float | bool):
        return value
    raise UsageError(f"{path}: {name} must be text, a number, true or false, or a list of texts")
