"""Files that are sent into a pod, over connections that break and pods that fail."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from cvl.core.errors import CvlError
from cvl.core.scope import Cancelled, Scope
from cvl.core.spec import Cause
from cvl.providers.kubernetes import files, pod_exec
from cvl.providers.kubernetes.client import Client
from cvl.testing.kubernetes.certificates import authority

DATA = os.urandom(3 << 20)
DONE = b'\x03{"status": "Success"}'
FULL = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "1"}]}}
POD = {"metadata": {"namespace": "n", "name": "p"}}
Handler = Callable[[ServerConnection, int], None]


class Pods:
    """A server of WebSockets that hears what is sent, and does with it what a test says."""

    def __init__(self, folder: Path, handle: Handler) -> None:
        certificate, tls = authority(folder)
        self.paths: list[str] = []

        def handled(connection: ServerConnection) -> None:
            assert connection.request
            self.paths.append(connection.request.path)
            handle(connection, len(self.paths))

        self.server: Server = serve(
            handled,
            "127.0.0.1",
            0,
            ssl=tls,
            subprotocols=list(pod_exec.PROTOCOLS),  # type: ignore[arg-type]
        )
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        port = self.server.socket.getsockname()[1]
        ca = base64.b64encode(certificate).decode()
        there = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": ca}
        whole = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": there}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        (folder / "config").write_text(json.dumps(whole))
        self.client = Client(kubeconfig=str(folder / "config"))


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Handler], Pods]]:
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made: list[Pods] = []

    def begin(handle: Handler) -> Pods:
        made.append(Pods(tmp_path, handle))
        return made[-1]

    yield begin
    for each in made:
        each.server.shutdown()


def sent(there: Pods, scope: Scope | None = None) -> None:
    with closing(io.BytesIO(DATA)) as archive:
        files._to(there.client, POD, archive, len(DATA), scope or Scope())


def heard(connection: ServerConnection, most: int) -> bytes:
    data = b""
    while len(data) < most:
        message = connection.recv()
        assert isinstance(message, bytes)
        assert message[0] == pod_exec.IN
        data += message[1:]
    return data


def test_all_of_it_arrives_in_order(pods: Callable[[Handler], Pods]) -> None:
    came: list[bytes] = []

    def handle(connection: ServerConnection, _count: int) -> None:
        came.append(heard(connection, len(DATA)))
        connection.send(DONE)

    there = pods(handle)
    sent(there)
    assert came == [DATA]
    assert "stdin=true" in there.paths[0]
    assert f"command={len(DATA)}" in there.paths[0]


def test_a_connection_that_breaks_is_made_again_from_the_beginning(
    pods: Callable[[Handler], Pods],
) -> None:
    came: list[bytes] = []

    def handle(connection: ServerConnection, count: int) -> None:
        if count == 1:
            heard(connection, 1 << 20)
            connection.socket.close()
            return
        came.append(heard(connection, len(DATA)))
        connection.send(DONE)

    there = pods(handle)
    sent(there)
    assert (came, len(there.paths)) == ([DATA], 2)


def test_a_pod_that_cannot_take_it_is_told_with_its_words(
    pods: Callable[[Handler], Pods],
) -> None:
    """It may end while most of it is still to be sent."""

    def handle(connection: ServerConnection, _count: int) -> None:
        heard(connection, 1 << 18)
        connection.send(b"\x02head: write error: No space left on device")
        connection.send(b"\x03" + json.dumps(FULL).encode())

    told: list[str] = []
    with pytest.raises(CvlError, match=r"could not be sent into the pod: .*No space left"):
        sent(pods(handle), Scope(tell=lambda _, text: told.append(text)))
    again = [text for text in told if text.endswith("; sending again")]
    assert len(again) == len(files.PAUSES)


def test_whoever_waits_can_call_it_off(pods: Callable[[Handler], Pods]) -> None:
    scope = Scope()

    def handle(connection: ServerConnection, _count: int) -> None:
        heard(connection, 1 << 18)
        scope.cancel(Cause.INTERRUPTED)
        heard(connection, len(DATA))

    with pytest.raises(Cancelled):
        sent(pods(handle), scope)
