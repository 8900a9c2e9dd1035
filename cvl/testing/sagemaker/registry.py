"""A real image registry on loopback, in a private folder; ends with whoever started it."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from cvl.testing.lifeline import Lifeline

USER, PASSWORD = "AWS", "123456789012-auth-token"
HEADERS = {
    "Authorization": f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}",
    "Accept": "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.manifest.v1+json",
}
OK = 200
START_LIMIT = 20.0
SCRIPT = """docker-registry serve "$1" >"$2" 2>&1 & pid=$!
echo ready; cat >/dev/null; kill "$pid"; wait "$pid" """


def missing() -> str:
    """Return why there can be no registry here, "" if there can."""
    for program in ("docker-registry", "htpasswd"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return ""


def holds(host: str, repository: str, tag: str) -> bool:
    """Return whether a registry has an image, by its HTTP API v2."""
    request = urllib.request.Request(
        f"http://{host}/v2/{repository}/manifests/{tag}", method="HEAD", headers=HEADERS
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == OK)
    except OSError:
        return False


class ImageRegistry:
    """Debian's docker-registry, with the login that moto's ECR hands out."""

    def __init__(self, folder: Path) -> None:
        """Start it below `folder` and wait until it answers."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        word = subprocess.run(
            ["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, check=True, timeout=20
        )
        (folder / "htpasswd").write_bytes(word.stdout.strip() + b"\n")
        config = folder / "registry.yml"
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/store}}}}\n"
            f"auth: {{htpasswd: {{realm: ecr, path: {folder}/htpasswd}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )
        self.log = folder / "log"
        self._line = Lifeline(["sh", "-c", SCRIPT, "sh", str(config), str(self.log)])
        self._await()

    def close(self) -> None:
        """End it."""
        self._line.close()

    def requests(self, method: str) -> int:
        """Return how many requests of a method it has answered."""
        return self.log.read_text(errors="replace").count(f'"{method} /v2/')

    def _await(self) -> None:
        until = time.monotonic() + START_LIMIT
        while True:
            try:
                urllib.request.urlopen(f"http://{self.host}/v2/", timeout=2)
            except urllib.error.HTTPError:
                return  # 401: it is there and wants a login
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
