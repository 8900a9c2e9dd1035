"""As much of cloud-init as a first boot needs: `#cloud-config` turned into shell scripts.

Knows ssh_keys, ssh_deletekeys, ssh_authorized_keys, write_files, bootcmd, runcmd, and a `#!`
script in place of YAML. What it does not know it leaves alone, as cloud-init does.
"""

from __future__ import annotations

import base64
import gzip
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Config = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripts:
    """What to run as root: before sshd on the first boot and on every boot, and at the very end."""

    first: str = ""
    every: str = ""
    final: str = ""


def scripts(user_data: str, *, user: str) -> Scripts:
    """Return what `user_data` asks for. Raises ValueError where the YAML cannot be read."""
    if user_data.startswith("#!"):
        return Scripts(final=_program(user_data))
    if not user_data.startswith("#cloud-config"):
        return Scripts()
    config = _parse(user_data)
    files = [entry for entry in _list(config, "write_files") if isinstance(entry, Mapping)]
    early = [_write(entry) for entry in files if not entry.get("defer")]
    late = [_write(entry) for entry in files if entry.get("defer")]
    return Scripts(
        first="\n".join([*_keys(config), *_authorized(config, user), *early]),
        every="\n".join(_commands(config, "bootcmd")),
        final="\n".join([*late, *_commands(config, "runcmd")]),
    )


def host_keys(user_data: str) -> Mapping[str, str]:
    """Return the `ssh_keys` of a cloud-config."""
    if not user_data.startswith("#cloud-config"):
        return {}
    keys = _parse(user_data).get("ssh_keys")
    return {str(name): str(text) for name, text in keys.items()} if isinstance(keys, dict) else {}


def _parse(text: str) -> Config:
    import yaml

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"user_data is not YAML: {error}") from error
    if isinstance(config, dict):
        return config
    raise ValueError("user_data is not a YAML mapping")


def _list(config: Config, key: str) -> list[object]:
    value = config.get(key) or []
    return value if isinstance(value, list) else []


def _keys(config: Config) -> Iterator[str]:
    """Yield the host keys: `ssh_keys: {ed25519_private: ..., ed25519_public: ...}`."""
    keys = config.get("ssh_keys")
    if config.get("ssh_deletekeys", True):
        yield "rm -f /etc/ssh/ssh_host_*"
    for name, text in keys.items() if isinstance(keys, dict) else ():
        kind, _, half = str(name).partition("_")
        path = f"/etc/ssh/ssh_host_{kind}_key" + (".pub" if half == "public" else "")
        yield _put(path, str(text).encode(), "0644" if half == "public" else "0600")


def _authorized(config: Config, user: str) -> Iterator[str]:
    for key in _list(config, "ssh_authorized_keys"):
        yield f"printf '%s\\n' {shlex.quote(str(key))} >>/home/{user}/.ssh/authorized_keys"


def _write(entry: Config) -> str:
    path, owner = str(entry["path"]), str(entry.get("owner", "root:root"))
    content = _content(str(entry.get("content", "")), str(entry.get("encoding", "")))
    mode = entry.get("permissions", "0644")
    mode = f"{mode:04o}" if isinstance(mode, int) else str(mode)
    put = _put(path, content, mode, append=bool(entry.get("append")))
    return f"{put}\nchown {shlex.quote(owner)} {shlex.quote(path)}"


def _content(text: str, encoding: str) -> bytes:
    """Decode as cloud-init names it: b64, base64, gz, gzip, gz+b64, gzip+base64, ..."""
    data = text.encode()
    if encoding.endswith(("b64", "base64")):
        data = base64.b64decode(data)
    return gzip.decompress(data) if encoding.startswith("gz") else data


def _put(path: str, content: bytes, mode: str, *, append: bool = False) -> str:
    quoted = shlex.quote(path)
    encoded = base64.b64encode(content).decode()
    arrow = ">>" if append else ">"
    return (
        f'mkdir -p "$(dirname {quoted})"\n'
        f"(umask 077; printf %s {encoded} | base64 -d {arrow}{quoted})\n"
        f"chmod {shlex.quote(mode)} {quoted}"
    )


def _commands(config: Config, key: str) -> Iterator[str]:
    """Yield each command: a list is an argv, a string is for the shell."""
    for command in _list(config, key):
        if isinstance(command, list):
            yield shlex.join(str(word) for word in command)
        else:
            yield f"sh -c {shlex.quote(str(command))}"


def _program(text: str) -> str:
    path = "/var/lib/cloud/instance/user-script"
    return f"{_put(path, text.encode(), '0700')}\n{path}"
