"""Connections through real proxies on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from cvl.core.errors import UsageError
from cvl.core.extras import Extra
from cvl.core.http.connection import NotDialled, line
from cvl.core.http.pool import pool
from cvl.core.http.proxies import named
from cvl.testing.connect_proxy import ConnectProxy
from cvl.testing.kubernetes.certificates import authority

LIMIT = 10.0
SHORT = 0.5
KINDS = ["http", "https", "socks5"]
PASSWORD = "pass:w@rd/1234"
QUOTED = "me:pass%3Aw%40rd%2F1234"


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """How servers here show who they are; this machine trusts them."""
    certificate, context = authority(tmp_path)
    (tmp_path / "ca.pem").write_bytes(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return context


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(near: socket.socket) -> None:
            with near, suppress(OSError):
                while data := near.recv(1 << 16):
                    near.sendall(data)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def proxied(kind: str, tls: ssl.SSLContext, **more: object) -> ConnectProxy:
    secure = {"tls": tls} if kind == "https" else {}
    return ConnectProxy(socks=kind == "socks5", **secure, **more)  # type: ignore[arg-type]


def test_without_a_proxy_it_is_a_connection(echo: int) -> None:
    with line("127.0.0.1", echo, None, LIMIT) as made:
        made.sendall(b"x")
        assert made.recv(1) == b"x"


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_go_through_both_ways(kind: str, tls: ssl.SSLContext, echo: int) -> None:
    """More than all buffers hold, sent while nobody reads what comes back yet."""
    sent = bytes(range(256)) * 8192
    with ExitStack() as stack:
        proxy = stack.enter_context(
            proxied(kind, tls, names={"far.example:7": echo}, login=f"me:{PASSWORD}")
        )
        made = stack.enter_context(
            line("far.example", 7, named(proxy.url(QUOTED), "HTTPS_PROXY"), LIMIT)
        )
        sending = threading.Thread(target=made.sendall, args=(sent,), daemon=True)
        sending.start()
        heard = b""
        while len(heard) < len(sent):
            heard += made.recv(1 << 16)
        sending.join(LIMIT)
        assert heard == sent
        assert proxy.places == ["far.example:7"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_closes_is_closed_at_the_other_end(kind: str, tls: ssl.SSLContext) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        proxy = stack.enter_context(proxied(kind, tls))
        way = named(proxy.url(), "x")
        near = line("127.0.0.1", server.getsockname()[1], way, LIMIT)
        far, _ = server.accept()
        with far:
            far.settimeout(LIMIT)
            near.close()
            assert far.recv(1) == b""
        near = line("127.0.0.1", server.getsockname()[1], way, LIMIT)
        far, _ = server.accept()
        with near:
            far.sendall(b"the last words")
            far.close()
            assert near.recv(100) == b"the last words"
            assert near.recv(1) == b""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("login", ["m\udce9:p\udce9", "m%E9:p%e9", "mé:pß", "m%C3%A9:p%C3%9F"])
def test_a_login_arrives_as_the_bytes_that_it_is(
    kind: str, login: str, tls: ssl.SSLContext, echo: int
) -> None:
    odd = login.startswith(("m\udce9", "m%E9"))
    with proxied(kind, tls, login="m\udce9:p\udce9" if odd else "mé:pß") as proxy:
        way = named(proxy.url(login), "HTTPS_PROXY")
        line("127.0.0.1", echo, way, LIMIT).close()
        assert ("m%E9:p%E9@" if odd else "m%C3%A9:p%C3%9F@") in way.url


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("login", ["", "me:wrong-password", QUOTED])
def test_a_wrong_login_is_told_and_never_shown(
    kind: str, login: str, tls: ssl.SSLContext, echo: int
) -> None:
    del echo
    with proxied(kind, tls, login="me:another-password") as proxy:
        with pytest.raises(NotDialled) as caught:
            line("127.0.0.1", 9, named(proxy.url(login), "HTTPS_PROXY"), LIMIT)
        said = str(caught.value)
        assert f":{proxy.port} (HTTPS_PROXY)" in said
        assert "does not accept the user and password" in said if login else "wants a login" in said
        assert not {"wrong-password", PASSWORD, QUOTED} & set(said.split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_told(kind: str, tls: ssl.SSLContext) -> None:
    with (
        proxied(kind, tls, answer="403 Forbidden by policy") as proxy,
        pytest.raises(NotDialled, match=r"does not lead to far.example:443: (403 Forb|its rules)"),
    ):
        line("far.example", 443, named(proxy.url(), "HTTPS_PROXY"), LIMIT)


@pytest.mark.parametrize("kind", ["http", "https"])
def test_a_proxy_that_says_nothing_is_given_up(kind: str, tls: ssl.SSLContext) -> None:
    with proxied(kind, tls, answer="") as proxy:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="does not answer"):
            line("far.example", 443, named(proxy.url(), "HTTPS_PROXY"), SHORT)
        assert time.monotonic() - began < LIMIT


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "closed the connection"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 502 Bad Gateway\r\nX: y\r\n\r\n", "502 Bad Gateway"),
        (b"x" * (1 << 17), "does not speak HTTP"),
    ],
)
def test_what_is_no_proxy_is_told(said: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            near, _ = server.accept()
            with near, suppress(OSError):
                near.recv(4096)
                near.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        way = named(f"127.0.0.1:{server.getsockname()[1]}", "ALL_PROXY")
        with pytest.raises(NotDialled, match=words):
            line("far.example", 443, way, LIMIT)


def test_a_proxy_that_drips_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def answer() -> None:
            near, _ = server.accept()
            with near, suppress(OSError):
                while not over.wait(0.05):
                    near.sendall(b"H")

        threading.Thread(target=answer, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="does not answer"):
            line("far", 443, named(f"127.0.0.1:{server.getsockname()[1]}", "x"), SHORT)
        over.set()
        assert time.monotonic() - began < LIMIT


def test_a_proxy_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotDialled, match=rf"the proxy 127.0.0.1:{port} \(HTTPS_PROXY\) cannot be"):
        line("far", 443, named(f"http://{QUOTED}@127.0.0.1:{port}", "HTTPS_PROXY"), LIMIT)


def test_a_bundle_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file, words in ((tmp_path / "none", "No such file"), (tmp_path / "bad", "no authorities")):
        if words == "no authorities":
            file.write_text("nothing")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
        with pytest.raises(UsageError, match=f"REQUESTS_CA_BUNDLE names .*{words}"):
            pool(Extra(name="remote", modules=("urllib3",)))
