"""Whatever a library raises on the way to an API and back is one of our errors, in one sentence."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedError

from cvl.core.errors import (
    Ambiguity,
    CvlError,
    NotConnected,
    ProviderError,
    Unreachable,
    UsageError,
)
from cvl.core.http.errors import reason
from cvl.core.http.secure_url import address
from cvl.core.units import variable
from cvl.providers.kubernetes.client import Client
from cvl.providers.lambda_cloud.api import LambdaAPI
from cvl.tests.fakes import FakeClock

HEAD = b"HTTP/1.1 200 OK\r\n"
BROKEN = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another version": b"HTTP/9.9 200 OK\r\n\r\n",
    "a status without end": b"HTTP/1.1 " + b"9" * 5000 + b" OK\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a header without end": HEAD + b"A: " + b"x" * 70_000 + b"\r\n\r\n",
    "200 headers": HEAD + b"A: b\r\n" * 200 + b"\r\n",
    "two lengths": HEAD + b"Content-Length: 3, 4\r\n\r\nabc",
    "a length of 5000 digits": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n[]",
    "cut": HEAD + b"Content-Length: 30\r\n\r\n{",
    "a chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunks cut": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
    "no gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "no zlib": HEAD + b"Content-Encoding: deflate\r\nContent-Length: 3\r\n\r\nabc",
    "gzip twice": HEAD + b"Content-Encoding: gzip, gzip\r\nContent-Length: 3\r\n\r\nabc",
    "ten encodings": HEAD + b"Content-Encoding: " + b"gzip, " * 10 + b"gzip\r\n\r\nabc",
    "a header of bytes": HEAD + b"\xff\xfe: \xff\r\nContent-Length: 1\r\n\r\n\xff",
    "a date that is none": HEAD + b"Date: \x01\r\nContent-Length: 1\r\n\r\n[",
    "deep": HEAD + b"\r\n" + b"[" * 100_000,
    "a number of 9000 digits": HEAD + b"\r\n" + b"9" * 9000,
    "a date of no year": HEAD + b"Date: Mon, 99 Foo 99999 99:99:99 GMT\r\n\r\n[]",
    "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: :::\r\nContent-Length: 0\r\n\r\n",
    "null": HEAD + b"Content-Length: 4\r\n\r\nnull",
    "an error that is none": b"HTTP/1.1 500 No\r\nContent-Length: 13\r\n\r\n" + b'{"error": []}',
    "a refusal of bytes": b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n\xff\xfe",
}
LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""urllib3 leaves a socket to the garbage collector where it cannot make sense of a header."""


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """Answer every request with these bytes; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    made, _ = server.accept()
                except OSError:
                    return
                with made, suppress(OSError):
                    made.settimeout(0.3)
                    made.recv(1 << 16)
                    made.sendall(data)
                    made.shutdown(socket.SHUT_WR)
                    while made.recv(1 << 16):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def kubeconfig(folder: Path, server: str, **more: object) -> str:
    file = folder / "config"
    folder.mkdir(exist_ok=True)
    file.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server, **more}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    return str(file)


def one_sentence(error: CvlError) -> None:
    assert "\n" not in str(error)
    assert "object at 0x" not in str(error)
    assert "('" not in str(error)
    assert "IncompleteRead" not in str(error)
    assert len(str(error)) < 700


@LEFT_OPEN
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_no_answer_of_the_lambda_api_is_a_library_s_exception(data: bytes) -> None:
    with answering(data) as url:
        account = LambdaAPI("a-key-of-the-account", url, interval=0, clock=FakeClock())
        with pytest.raises(CvlError) as caught:
            account.get("/instances")
        one_sentence(caught.value)
        with pytest.raises(Ambiguity) as doubt:  # a machine may be there: never `Rejected`
            account.once("/instance-operations/launch", {})
        one_sentence(doubt.value)


@LEFT_OPEN
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_no_answer_of_an_api_server_is_a_library_s_exception(data: bytes, tmp_path: Path) -> None:
    with answering(data) as url:
        client = Client(kubeconfig=kubeconfig(tmp_path, url))
        with pytest.raises(CvlError) as caught:
            client.create("/api/v1/namespaces/x/pods", {})
        one_sentence(caught.value)
        assert not isinstance(caught.value, UsageError)


NO_SERVERS = [
    "garbage",
    "https://",
    "https://h:99999",
    "https://[::1",
    "https://[1.2.3]",
    "https://a..b",
    f"https://{'a' * 64}.b",
    "https://h:port",
    "ftp://h",
    "https://h/?q",
    "https://user:password@h",
    "https://h\n.b",
    "https://é.b",
    "//h",
    "/var/run/x.sock",
    "unix:///x",
    "",
    " ",
    "https://h:0",
]


@pytest.mark.parametrize("url", NO_SERVERS)
def test_what_is_no_address_is_said_before_anybody_is_called(url: str) -> None:
    with pytest.raises(UsageError, match="X is no address of a server"):
        address(url, "X")


@given(url=st.text(max_size=30) | st.from_regex(r"https?://[^/]{0,20}(/.{0,5})?", fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_what_passes_for_an_address_can_be_called(url: str) -> None:
    """No library makes anything else of it, or chokes on it."""
    from urllib.parse import urlsplit

    from urllib3.util import parse_url

    try:
        address(url, "X")
    except UsageError:
        return
    there, again = urlsplit(url), parse_url(url)
    assert (again.host or "").strip("[]") == there.hostname
    assert there.port == again.port


PROXIES = [":::", "http://[::1", "ftp://x", "http://127.0.0.1:99999", f"http://{'a' * 64}.b"]


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_that_is_none_is_said_and_not_tried_again(
    proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    client = Client(kubeconfig=kubeconfig(tmp_path, "https://h.invalid", **{"proxy-url": proxy}))
    with pytest.raises(UsageError) as caught:
        client.get("/version")
    one_sentence(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    client = Client(kubeconfig=kubeconfig(tmp_path, "https://h.invalid"))
    with pytest.raises(UsageError) as caught:
        client.get("/version")
    one_sentence(caught.value)


def test_where_nobody_listens_nothing_was_sent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(NotConnected, match="no answer from http://127"):
        Client(kubeconfig=kubeconfig(tmp_path, url)).create("/x", {})
    account = LambdaAPI("a-key-of-the-account", url, interval=0, clock=FakeClock())
    with pytest.raises(ProviderError, match="cannot be reached"):
        account.once("/x", {})


def test_a_server_without_tls_is_no_answer(tmp_path: Path) -> None:
    with answering(b"no TLS") as url:
        client = Client(kubeconfig=kubeconfig(tmp_path, url.replace("http", "https")))
        with pytest.raises(Unreachable) as caught:
            client.create("/x", {})
        one_sentence(caught.value)


@pytest.mark.filterwarnings("error")
def test_a_broken_websocket_is_read_without_a_warning() -> None:
    assert "close frame" in reason(ConnectionClosedError(None, None))


NO_NUMBERS = ["x", "nan", "inf", "-1", "1e9", "0x1", "9" * 5000, "1,5", "é", " "]
NUMBERS = {
    "LAMBDA_API_RPS": ("offers",),
    "LAMBDA_LAUNCH_INTERVAL": ("offers",),
    "LAMBDA_READ_LIMIT": ("offers",),
    "LAMBDA_SETTLE": ("offers",),
    "SAGEMAKER_SETTLE": ("run", "--sagemaker", "--dry-run", "x", "y"),
    "SAGEMAKER_LOOK": ("run", "--sagemaker", "--dry-run", "x", "y"),
    "SAGEMAKER_DRAIN": ("run", "--sagemaker", "--dry-run", "x", "y"),
    "CVL_KUBE_READ": ("run", "--k8s", "--dry-run", "x", "y"),
    "CVL_KUBE_SETTLE": ("run", "--k8s", "--dry-run", "x", "y"),
    "CVL_KUBE_LOOK": ("run", "--k8s", "--dry-run", "x", "y"),
}


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_a_variable_that_is_no_number_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_LIMIT", text)
    with pytest.raises(UsageError, match="X_LIMIT is no number") as caught:
        variable("X_LIMIT", 1)
    one_sentence(caught.value)


@pytest.mark.parametrize("name", NUMBERS)
def test_no_variable_of_ours_that_is_no_number_is_a_defect(name: str, tmp_path: Path) -> None:
    env = {**os.environ, "CVL_STATE_DIR": str(tmp_path), "LAMBDA_API_KEY": "k" * 20, name: "abc"}
    argv = [sys.executable, "-m", "cvl", *NUMBERS[name]]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"{name} is no number" in done.stderr
