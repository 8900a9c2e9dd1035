"""The SSH keys of one run: one to log in with, one that the machine is to have."""

from __future__ import annotations

import os
from pathlib import Path

from cvl.core.errors import CvlError, MissingTool
from cvl.core.frozen import dataclass
from cvl.core.paths import private, replace_file

REDACTED = "<redacted:host_key>"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKeys:
    """Where the keys lie, and what goes into the launch request."""

    folder: Path
    public_key: str
    host_public_key: str

    @property
    def path(self) -> Path:
        """The private key that logs in."""
        return self.folder / "login"

    @property
    def known_hosts(self) -> Path:
        """The file that pins the machine's key, and nothing else."""
        return self.folder / "known_hosts"

    @property
    def host_key(self) -> str:
        """The private key that the machine is to have."""
        host = self.folder / "host"
        return host.read_text() if host.exists() else REDACTED

    @property
    def accept_new(self) -> bool:
        """Whether the machine may show any key at first; then it has to stay."""
        return (self.folder / "accept-new").exists()

    @classmethod
    def made(cls, folder: Path, *, accept_new: bool = False) -> RunKeys:
        """Make both keys, ed25519, without passphrase, 0600. Raises `MissingTool`."""
        private(folder)
        for name in ("login", "host"):
            generate(folder / name)
        if accept_new:
            for name in ("accept-new", "known_hosts"):  # ssh itself would go by the umask
                replace_file(folder / name, b"")
        return cls.at(folder)

    @classmethod
    def at(cls, folder: Path) -> RunKeys:
        """Return the keys that lie in `folder`. Raises `CvlError` when they do not."""
        try:
            return cls(
                folder=folder,
                public_key=(folder / "login.pub").read_text().strip(),
                host_public_key=(folder / "host.pub").read_text().strip(),
            )
        except FileNotFoundError as error:
            raise CvlError(
                f"the SSH keys of this run are not on this machine ({error.filename})",
                "only the machine that started it can log in; `cvl reap` can still end it",
            ) from error

    @classmethod
    def redacted(cls) -> RunKeys:
        """Return stand-ins for a plan that only shows the request."""
        public = "ssh-ed25519 <made at launch>"
        return cls(folder=Path(os.devnull), public_key=public, host_public_key=public)

    def pin(self, address: str) -> None:
        """Let this address have the run's host key, and no other. Takes `HOST` or `HOST:PORT`.

        With `accept_new` it is for ssh to fill the file.
        """
        if self.accept_new:
            return
        host, _, port = address.partition(":")
        name = f"[{host}]:{port}" if port else host
        line = f"{name} {' '.join(self.host_public_key.split()[:2])}\n"
        replace_file(self.known_hosts, line.encode())


def generate(path: Path) -> None:
    """Make one key pair at `path` and `path`.pub. Raises `MissingTool` and `CvlError`."""
    from subprocess import run

    path.unlink(missing_ok=True)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "cvl", "-f", str(path)]
    try:
        process = run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingTool(
            "ssh-keygen is not installed here", "apt install openssh-client"
        ) from None
    if process.returncode:
        raise CvlError(f"ssh-keygen failed: {process.stderr.strip()}")
    for file in (path, path.with_name(f"{path.name}.pub")):
        file.chmod(0o600)
