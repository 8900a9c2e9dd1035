"""Commands in a pod, over servers that do not do as they should."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cvl.core.errors import Unreachable
from cvl.providers.kubernetes import pod_exec
from cvl.providers.kubernetes.client import Client
from cvl.testing.kubernetes.certificates import authority

LIMIT = 0.5


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Client]:
    """A server that speaks TLS, hands out session tickets, reads what is asked and says nothing."""
    certificate, tls = authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = f"https://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=_listen, args=(listener, tls), daemon=True).start()
        ca = base64.b64encode(certificate).decode()
        file = tmp_path / "kubeconfig"
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {"server": server, "certificate-authority-data": ca},
                        }
                    ],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                }
            )
        )
        yield Client(kubeconfig=str(file))


def _listen(listener: socket.socket, tls: ssl.SSLContext) -> None:
    with suppress(OSError):
        raw, _ = listener.accept()
        with tls.wrap_socket(raw, server_side=True) as line:
            while line.recv(4096):
                pass


def test_a_server_that_never_answers_is_given_up(
    silent: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_exec, "CONNECT_LIMIT", LIMIT)
    said: list[Exception] = []

    def ask() -> None:
        try:
            list(pod_exec.output(silent, "/api/v1/namespaces/default/pods/p", ["true"]))
        except Unreachable as error:
            said.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(20)
    assert not asking.is_alive(), "waits for ever"
    assert "no command can be run in p" in str(said[0])
