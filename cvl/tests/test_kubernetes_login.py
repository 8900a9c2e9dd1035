"""Who we are to a cluster, renewed while a run goes on: over a server that knows what is good."""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from websockets.sync.server import ServerConnection, serve

from cvl.core.errors import AuthError, CvlError, NotConnected, UsageError
from cvl.core.http import tls as dial_tls
from cvl.providers.kubernetes import credentials, exec_plugin, kubeconfig, login, pod_exec
from cvl.providers.kubernetes.client import Client
from cvl.testing.connect_proxy import ConnectProxy

POD = "/api/v1/namespaces/n/pods/p"
OK_STATUS = b'\x03{"status": "Success"}'
V1 = "client.authentication.k8s.io/v1"


class Authority:
    """A certificate authority as clusters make them for themselves: no key usage, no identifier."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name
        ca = self._builder(name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.pem = ca.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def pair(self, who: str, *names: str, life: timedelta = timedelta(days=1)) -> tuple[str, str]:
        """Return a certificate and its key, PEM both."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._builder(who, key, life)
        if names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            made = made.add_extension(alternative, critical=False)
        pem = made.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem.decode(), private.decode()

    def server(self, *names: str) -> ssl.SSLContext:
        """Return how a server shows that it is these, and hears who others are."""
        file = self.folder / f"{names[0]}.pem"
        file.write_text("".join(self.pair("server", *names)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.load_verify_locations(cadata=self.pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _builder(
        self, who: str, key: ec.EllipticCurvePrivateKey, life: timedelta = timedelta(days=1)
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + life)
        )


class Server:
    """Answers whoever shows something in `good`, and keeps the headers of all requests."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.good: set[str] = set()
        self.asked: list[list[tuple[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(list(self.headers.items()))
                shown = {self.headers.get("Authorization", "").removeprefix("Bearer ")}
                peer = self.connection.getpeercert()
                shown |= {value for ((_, value),) in (peer or {}).get("subject", ())}
                body = b'{"items": [], "message": "Unauthorized"}'
                self.send_response(200 if outer.good & shown else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.socket = context.wrap_socket(
            self.http.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.http.server_address[1])

    def names(self, header: str) -> list[str]:
        """Return the values of a header in the last request."""
        return [value for name, value in self.asked[-1] if name == header]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(login, "LOOK", 0.0)
    made = Server(authority.server("localhost", "cluster.example"))
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def config(tmp_path: Path, authority: Authority, server: Server) -> Config:
    return Config(tmp_path / "kubeconfig", f"https://localhost:{server.port}", authority.pem)


class Config:
    """A kubeconfig that a login may write anew."""

    def __init__(self, file: Path, server: str, ca: bytes) -> None:
        self.file = file
        self.cluster: dict[str, Any] = {
            "server": server,
            "certificate-authority-data": base64.b64encode(ca).decode(),
        }

    def write(self, user: Mapping[str, Any], **cluster: Any) -> Client:
        """Write it; return a client of it."""
        self.cluster |= cluster
        whole = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": self.cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        spare = self.file.with_name("spare")
        spare.write_text(json.dumps(whole))
        spare.replace(self.file)
        return Client(kubeconfig=str(self.file))


class Program:
    """A credential program that gives what its file says, and counts how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "asked"
        self.told = folder / "told.json"
        script = folder / "login-program"
        script.write_text(f"#!/bin/sh\necho x >>{self.log}\ncat {self.told}\n")
        script.chmod(0o755)
        self.user = {"exec": {"apiVersion": V1, "command": str(script)}}

    def gives(self, **status: str) -> None:
        answer = {"apiVersion": V1, "kind": "ExecCredential", "status": status}
        self.told.write_text(json.dumps(answer))

    @property
    def count(self) -> int:
        return self.log.read_text().count("x") if self.log.exists() else 0


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(login, "PATIENCE", 0.0)
    return Program(tmp_path)


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


# --- renewed -------------------------------------------------------------------------------------


def test_a_token_that_a_new_login_wrote_is_taken(config: Config, server: Server) -> None:
    client = config.write({"token": "old"})
    server.good = {"old"}
    client.get("/api")
    server.good = {"new"}
    with pytest.raises(AuthError, match="does not accept who we are"):
        client.get("/api")
    config.write({"token": "new"})
    client.get("/api")
    assert server.names("Authorization") == ["Bearer new"]


def test_a_refusal_reads_it_at_once(
    config: Config, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between two looks at the files, and though the file's stamps are the same."""
    monkeypatch.setattr(login, "LOOK", 3600.0)
    client = config.write({"token": "old"})
    server.good = {"old"}
    client.get("/api")
    client.get("/api")
    server.good = {"new"}
    config.write({"token": "new"})
    client.get("/api")
    assert len(server.asked) == 4
    server.asked.clear()
    server.good = set()
    with pytest.raises(AuthError):
        client.get("/api")
    assert len(server.asked) == 1, "nothing new is shown to nobody"


def test_a_login_for_another_cluster_is_not_taken(config: Config, server: Server) -> None:
    client = config.write({"token": "old"})
    server.good = {"old"}
    client.get("/api")
    config.write({"token": "of-another"}, server="https://localhost:1")
    client.get("/api")
    assert server.names("Authorization") == ["Bearer old"]


def test_a_kubeconfig_that_is_half_written_is_not_taken(config: Config, server: Server) -> None:
    client = config.write({"token": "old"})
    server.good = {"old"}
    client.get("/api")
    config.file.write_text("clusters: [")
    client.get("/api")
    config.write({"token": "new"})
    server.good = {"new"}
    client.get("/api")


@pytest.mark.parametrize("expiry", ["", "2100-01-01T00:00:00Z"])
def test_a_program_is_asked_again_when_its_token_is_refused(
    expiry: str, config: Config, server: Server, program: Program
) -> None:
    due = {"expirationTimestamp": expiry} if expiry else {}
    program.gives(token="one", **due)
    client = config.write(program.user)
    server.good = {"one"}
    client.get("/api")
    client.get("/api")
    assert program.count == 1
    program.gives(token="two", **due)
    server.good = {"two"}
    client.get("/api")
    assert program.count == 2
    server.good = set()
    with pytest.raises(AuthError):
        client.get("/api")


def test_a_program_is_asked_again_when_its_token_has_expired(
    config: Config, server: Server, program: Program
) -> None:
    program.gives(token="one", expirationTimestamp=soon(credentials.EARLY + 1))
    client = config.write(program.user)
    server.good = {"one", "two"}
    client.get("/api")
    program.gives(token="two", expirationTimestamp=soon(3600))
    ends = time.monotonic() + 20
    while server.names("Authorization") != ["Bearer two"]:
        assert time.monotonic() < ends
        client.get("/api")
    assert program.count == 2


def test_a_program_is_not_asked_by_every_thread_that_is_refused(
    config: Config, server: Server, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "PATIENCE", 60.0)
    program.gives(token="bad")
    client = config.write(program.user)

    def ask() -> None:
        with suppress(AuthError):
            client.get("/api")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert program.count <= 2


@pytest.mark.parametrize("due", [{}, {"expirationTimestamp": "2100-01-01T00:00:00Z"}])
def test_a_programs_certificate_that_has_run_out_is_renewed(
    due: dict[str, str], config: Config, server: Server, program: Program, authority: Authority
) -> None:
    """The server says so by TLS, not by a 401."""
    first = authority.pair("me", life=timedelta(seconds=2))
    program.gives(clientCertificateData=first[0], clientKeyData=first[1], **due)
    client = config.write(program.user)
    server.good = {"me"}
    client.get("/api")
    second = authority.pair("me")
    program.gives(clientCertificateData=second[0], clientKeyData=second[1], **due)
    time.sleep(2.1)  # the certificate's life
    client.doors.current().pool.clear()
    client.get("/api")
    assert program.count == 2


def test_a_programs_certificate_is_renewed_before_it_expires(
    config: Config, server: Server, program: Program, authority: Authority
) -> None:
    first, second = authority.pair("one"), authority.pair("two")
    program.gives(
        clientCertificateData=first[0], clientKeyData=first[1], expirationTimestamp=soon(-1)
    )
    client = config.write(program.user)
    server.good = {"one"}
    client.get("/api")
    program.gives(
        clientCertificateData=second[0], clientKeyData=second[1], expirationTimestamp=soon(3600)
    )
    server.good = {"two"}
    client.get("/api")


def test_rotated_files_are_read(
    config: Config, server: Server, authority: Authority, tmp_path: Path
) -> None:
    for name, value in zip(("crt", "key"), authority.pair("one"), strict=True):
        (tmp_path / name).write_text(value)
    client = config.write({"client-certificate": "crt", "client-key": "key"})
    server.good = {"one"}
    client.get("/api")
    for name, value in zip(("crt", "key"), authority.pair("two"), strict=True):
        (tmp_path / name).write_text(value)
    server.good = {"two"}
    client.get("/api")


def test_a_key_with_a_passphrase_is_refused_and_nobody_asked_for_it(
    config: Config, server: Server, authority: Authority
) -> None:
    certificate, plain = authority.pair("one")
    key = load_pem_private_key(plain.encode(), None)
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase")
    )
    pair = {"client-certificate-data": certificate.encode(), "client-key-data": locked}
    client = config.write({name: base64.b64encode(data).decode() for name, data in pair.items()})
    with pytest.raises(AuthError, match="the client certificate is of no use"):
        client.get("/api")
    assert not server.asked


def test_a_rotated_authority_is_read(
    config: Config, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del authority
    monkeypatch.setattr(login, "LOOK", 0.0)
    other = Authority(tmp_path, "other")
    moved = Server(other.server("localhost"))
    moved.good = {"t"}
    client = config.write(
        {"token": "t"},
        **{"server": f"https://localhost:{moved.port}", "certificate-authority": "ca.pem"},
    )
    config.cluster.pop("certificate-authority-data")
    (tmp_path / "ca.pem").write_bytes(Authority(tmp_path, "old").pem)
    config.write({"token": "t"})
    with pytest.raises(CvlError):
        client.get("/api")
    (tmp_path / "ca.pem").write_bytes(other.pem)
    client.get("/api")
    moved.http.shutdown()
    moved.http.server_close()


def test_a_token_file_that_was_rotated_is_read_each_time(
    config: Config, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("one\n")
    client = config.write({"tokenFile": "token"})
    server.good = {"one"}
    client.get("/api")
    (tmp_path / "token").write_text("two\n")
    server.good = {"two"}
    client.get("/api")
    assert len(server.asked) == 2


def test_an_auth_providers_token_is_taken_while_it_is_good(config: Config, server: Server) -> None:
    server.good = {"t-1"}
    for name in ("id-token", "access-token"):
        config.write({"auth-provider": {"name": "x", "config": {name: "t-1"}}}).get("/api")
    old = {"access-token": "t-1", "expiry": "2020-01-01T00:00:00Z"}
    client = config.write({"auth-provider": {"name": "gcp", "config": old}})
    with pytest.raises(AuthError, match="has expired"):
        client.get("/api")
    config.write({"auth-provider": {"name": "gcp", "config": {**old, "expiry": soon(60)}}})
    client.get("/api")
    with pytest.raises(UsageError, match="auth-provider"):
        config.write({"auth-provider": {"name": "oidc"}}).get("/api")


# --- where ---------------------------------------------------------------------------------------


def test_the_namespace_is_the_contexts_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config"

    def of(context: Mapping[str, str], chosen: str | None = None) -> str:
        whole = {
            "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": "https://x"}}],
            "contexts": [
                {"name": "c", "context": {"cluster": "k", **context}},
                {"name": "d", "context": {"cluster": "k", "namespace": "of-d"}},
            ],
        }
        file.write_text(json.dumps(whole))
        return Client(chosen, str(file)).namespace

    assert of({"namespace": "team"}) == "team"
    assert of({"namespace": ""}) == of({}) == "default"
    assert of({"namespace": "team"}, "d") == "of-d"
    with pytest.raises(UsageError, match="no context 'e'"):
        of({}, "e")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.setattr(kubeconfig, "INSIDE", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert Client().namespace == "default"
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("of-the-pod\n")
    assert Client().namespace == "of-the-pod"
    monkeypatch.setenv("POD_NAMESPACE", "given")
    assert Client().namespace == "given"


# --- acting as somebody --------------------------------------------------------------------------

ACTING = {
    "token": "t",
    "as": "jané",
    "as-uid": "u-1",
    "as-groups": ["dev", "ops"],
    "as-user-extra": {"Example.com/Scope": ["a", "b"]},
}
SENT = [
    ("Impersonate-User", "jané".encode().decode("latin-1")),
    ("Impersonate-Uid", "u-1"),
    ("Impersonate-Group", "dev"),
    ("Impersonate-Group", "ops"),
    ("Impersonate-Extra-example.com%2Fscope", "a"),
    ("Impersonate-Extra-example.com%2Fscope", "b"),
]


def impersonating(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [each for each in headers if each[0].lower().startswith("impersonate")]


def test_who_is_acted_as_is_sent_with_every_request(config: Config, server: Server) -> None:
    server.good = {"t"}
    client = config.write(ACTING)
    client.get("/api")
    list(client.items("/api/v1/pods"))
    assert [impersonating(each) for each in server.asked] == [SENT, SENT]
    config.write({"token": "t", "as": "other"})
    client.get("/api")
    assert impersonating(server.asked[-1]) == [("Impersonate-User", "other")]


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"as-groups": ["a"]}, "groups to act as, and no user"),
        ({"as-uid": "a"}, "groups to act as, and no user"),
        ({"as": "a\r\nX: y"}, "holds a line break"),
    ],
)
def test_whom_nobody_can_act_as_is_said(
    user: dict[str, Any], words: str, config: Config, server: Server
) -> None:
    with pytest.raises(UsageError, match=words):
        config.write({"token": "t", **user}).get("/api")
    assert not server.asked


# --- commands in a pod ---------------------------------------------------------------------------


@pytest.fixture
def pod(authority: Authority) -> Iterator[Any]:
    """A server of WebSockets: `asked` are the headers, `good` the tokens."""

    class Pod:
        asked: ClassVar[list[list[tuple[str, str]]]] = []
        good: ClassVar[set[str]] = {"t"}

    def check(connection: ServerConnection, request: Any) -> Any:
        Pod.asked.append(list(request.headers.raw_items()))
        token = request.headers["Authorization"].removeprefix("Bearer ")
        return None if token in Pod.good else connection.respond(401, '{"message": "no"}')

    def handle(connection: ServerConnection) -> None:
        connection.send(b"\x01out")
        connection.send(OK_STATUS)

    Pod.asked = []
    listening = serve(
        handle,
        "127.0.0.1",
        0,
        ssl=authority.server("cluster.example"),
        process_request=check,
        subprotocols=list(pod_exec.PROTOCOLS),  # type: ignore[arg-type]
    )
    with listening as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Pod.port = server.socket.getsockname()[1]  # type: ignore[attr-defined]
        yield Pod
        server.shutdown()


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
@pytest.mark.parametrize("way", ["proxy-url", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_commands_go_through_the_proxy(
    kind: str,
    way: str,
    config: Config,
    pod: Any,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The proxy alone knows the cluster's name, so nothing can have gone past it."""
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = authority.server("localhost") if kind == "https" else None
    names = {"cluster.example:6443": pod.port}
    with ConnectProxy(
        names=names, login="me:pass-word-1", tls=tls, socks=kind == "socks5"
    ) as proxy:
        given = {}
        if way == "proxy-url":
            given = {"proxy-url": proxy.url("me:pass-word-1")}
            monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
            monkeypatch.setenv("NO_PROXY", "*")
        else:
            monkeypatch.setenv(way, proxy.url("me:pass-word-1"))
        client = config.write(ACTING, server="https://cluster.example:6443", **given)
        assert list(pod_exec.output(client, POD, ["true"])) == [b"out"]
        assert proxy.places == ["cluster.example:6443"]
    assert impersonating(pod.asked[0]) == SENT


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
def test_requests_go_through_the_kubeconfigs_proxy(
    kind: str,
    config: Config,
    server: Server,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("NO_PROXY", "*")
    server.good = {"t"}
    tls = authority.server("localhost") if kind == "https" else None
    names = {"cluster.example:6443": server.port}
    with ConnectProxy(names=names, tls=tls, socks=kind == "socks5") as proxy:
        there = {"server": "https://cluster.example:6443", "proxy-url": proxy.url()}
        client = config.write({"token": "t"}, **there)
        client.get("/api")
        with client.stream("/api/v1/log", 5.0) as stream:
            assert b"items" in b"".join(stream.blocks())
        assert set(proxy.places) == {"cluster.example:6443"}
        proxy.answer = "403 Not today"
        config.write({"token": "t"}, **{"tls-server-name": "cluster.example"})  # dials anew
        with pytest.raises(NotConnected, match=r"does not lead to cluster.example:6443"):
            client.create("/api/v1/namespaces", {})


def test_a_refused_command_is_met_with_a_new_login(config: Config, pod: Any) -> None:
    there = {"server": f"https://localhost:{pod.port}", "tls-server-name": "cluster.example"}
    client = config.write({"token": "old"}, **there)
    client.doors.current()
    config.write({"token": "t"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(login, "LOOK", 3600.0)
        client.doors._looked = time.monotonic()
        assert list(pod_exec.output(client, POD, ["true"])) == [b"out"]
    assert len(pod.asked) == 2
    pod.good = set()
    with pytest.raises(AuthError):
        list(pod_exec.output(client, POD, ["true"]))
    pod.good = {"t"}


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags that Python 3.13 sets, whatever Python this is."""
    plain = ssl.create_default_context

    def made(*args: Any, **more: Any) -> ssl.SSLContext:
        context = plain(*args, **more)
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    monkeypatch.setattr(ssl, "create_default_context", made)


@pytest.mark.usefixtures("strict")
def test_an_authority_without_key_usage_is_taken(
    config: Config, server: Server, pod: Any, authority: Authority, tmp_path: Path
) -> None:
    server.good = {"t"}
    config.write({"token": "t"}).get("/api")
    there = {"server": f"https://localhost:{pod.port}", "tls-server-name": "cluster.example"}
    client = config.write({"token": "t"}, **there)
    assert list(pod_exec.output(client, POD, ["true"])) == [b"out"]
    context = dial_tls.context(authority.pem.decode())
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert tmp_path


@pytest.mark.usefixtures("strict")
def test_all_else_is_verified(config: Config, server: Server, tmp_path: Path) -> None:
    server.good = {"t"}
    wrong = base64.b64encode(Authority(tmp_path, "other").pem).decode()
    for change in ({"tls-server-name": "another.example"}, {"certificate-authority-data": wrong}):
        with pytest.raises(CvlError, match="CERTIFICATE_VERIFY_FAILED"):
            config.write({"token": "t"}, **change).get("/api")
    assert not server.asked


def test_a_server_name_of_its_own_is_what_is_verified(
    config: Config, server: Server, pod: Any
) -> None:
    server.good = {"t"}
    there = {"server": f"https://127.0.0.1:{server.port}"}
    with pytest.raises(CvlError, match="CERTIFICATE_VERIFY_FAILED"):
        config.write({"token": "t"}, **there).get("/api")
    name = {"tls-server-name": "cluster.example"}
    client = config.write({"token": "t"}, **name)
    client.get("/api")
    tls = client.doors.current().tls
    assert tls
    assert tls.check_hostname, "commands in a pod are verified by the same"
    client = config.write({"token": "t"}, server=f"https://127.0.0.1:{pod.port}")
    assert list(pod_exec.output(client, POD, ["true"])) == [b"out"]


def test_what_is_not_verified_is_told_once(
    config: Config, server: Server, recwarn: pytest.WarningsRecorder
) -> None:
    """By us, and not for each request by a library."""
    server.good = {"t", "new"}
    config.cluster.pop("certificate-authority-data")
    client = config.write({"token": "t"}, **{"insecure-skip-tls-verify": True})
    said: list[str] = []
    client.doors.hear = said.append
    for token in ("t", "new", "t"):
        config.write({"token": token})
        client.get("/api")
    assert not recwarn.list
    assert len(said) == 1
    assert f"nobody checks that https://localhost:{server.port} is your cluster" in said[0]


# --- a program's words ---------------------------------------------------------------------------


def asked(tmp_path: Path, script: str, **more: Any) -> tuple[Client, list[tuple[float, str]]]:
    """Return a client whose program is this script, and what it says, and when."""
    (tmp_path / "program").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "program").chmod(0o755)
    user = {"exec": {"apiVersion": V1, "command": "./program", **more}}
    client = Config(tmp_path / "config", "https://127.0.0.1:1", b"").write(user)
    heard: list[tuple[float, str]] = []
    client.doors.hear = lambda words: heard.append((time.monotonic(), words))
    return client, heard


GIVE = f"""printf '{{"apiVersion": "{V1}", "status": {{"token": "t-1234567"}}}}'"""


def test_its_words_are_heard_while_it_waits(tmp_path: Path) -> None:
    done = tmp_path / "done"
    script = (
        "echo 'open https://x and enter AB-12' >&2; printf 'Code: ' >&2\n"
        f"while [ ! -e {done} ]; do sleep 0.05; done; {GIVE}"
    )
    client, heard = asked(tmp_path, script)
    asking = threading.Thread(target=client.doors.current, daemon=True)
    asking.start()
    ends = time.monotonic() + 20
    while [words for _, words in heard] != [
        "program: open https://x and enter AB-12",
        "program: Code:",
    ]:
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert asking.is_alive(), "it waits for somebody"
    done.touch()
    asking.join(20)
    assert dict(client.doors.current().headers) == {"Authorization": "Bearer t-1234567"}


def test_a_child_that_keeps_its_pipes_is_not_waited_for(tmp_path: Path) -> None:
    client, _ = asked(tmp_path, f"sleep 60 & {GIVE}")
    began = time.monotonic()
    client.doors.current()
    assert time.monotonic() - began < 20


def test_it_is_ended_where_nobody_can_hear_it(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; printf 'a\\nb' >&2; sleep 60"
    client, _ = asked(tmp_path, script)

    def deaf(words: str) -> None:
        raise ValueError(words)

    client.doors.hear = deaf
    with pytest.raises(ValueError, match="program: "):
        client.doors.current()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_its_last_words_are_no_longer_than_a_person_reads(tmp_path: Path) -> None:
    client, _ = asked(tmp_path, "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1")
    with pytest.raises(AuthError, match=r"failed: x{300}$"):
        client.doors.current()


def test_who_has_said_something_has_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_plugin, "SILENCE_LIMIT", 0.5)
    client, _ = asked(tmp_path, f"echo wait >&2; sleep 1; {GIVE}")
    client.doors.current()
    client, _ = asked(tmp_path, f"sleep 30; {GIVE}")
    began = time.monotonic()
    with pytest.raises(AuthError, match=r"no answer within 0.5 s"):
        client.doors.current()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo first >&2; echo 'please log in' >&2; exit 3", "failed: please log in"),
        ("exit 3", "failed: it ended with 3"),
        ("echo '{}'", "gave no credential"),
        ("echo '[]'", "gave no credential"),
        ("""echo '{"status": null}'""", "gave no credential"),
        ("""echo '{"status": {"token": 5}}'""", "gave no credential"),
        ("""echo '{"status": {"clientCertificateData": "x"}}'""", "gave no credential"),
        ("""echo '{"status": {"token": "t", "expirationTimestamp": "soon"}}'""", "is no date"),
        (f"""echo '{{"apiVersion": "{V1}beta1", "status": {{"token": "t"}}}}'""", "speaks client"),
        ("yes | head -c 3000000", "it printed more than 1 MB"),
    ],
)
def test_what_is_no_credential_is_told(script: str, words: str, tmp_path: Path) -> None:
    client, _ = asked(tmp_path, script)
    with pytest.raises(AuthError, match=words):
        client.doors.current()


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_it_is_told_what_the_protocol_says(version: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    group = exec_plugin.GROUP
    script = (
        f'printf %s "$KUBERNETES_EXEC_INFO" >{told}; printf %s "$A$B" >>{told}; '
        + GIVE.replace(V1, f"{group}/{version}")
    )
    env = [{"name": "A", "value": "a"}, {"name": "B", "value": ""}]
    user = {
        "exec": {
            "apiVersion": f"{group}/{version}",
            "command": "./program",
            "env": env,
            "provideClusterInfo": True,
        }
    }
    (tmp_path / "program").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "program").chmod(0o755)
    own = {"name": f"{group}/exec", "extension": {"audience": "me"}}
    more = {"tls-server-name": "n", "proxy-url": "http://127.0.0.1:1", "extensions": [own]}
    ca = Authority(tmp_path).pem
    Config(tmp_path / "config", "https://127.0.0.1:1", ca).write(user, **more).doors.current()
    info = json.loads(told.read_text().removesuffix("a"))
    assert info["apiVersion"] == f"{group}/{version}"
    assert info["spec"]["interactive"] is False
    assert info["spec"]["cluster"] == {
        "server": "https://127.0.0.1:1",
        "certificate-authority-data": base64.b64encode(ca).decode(),
        "tls-server-name": "n",
        "proxy-url": "http://127.0.0.1:1",
        "config": {"audience": "me"},
    }


def test_it_gets_a_terminal_only_where_it_wants_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"case $KUBERNETES_EXEC_INFO in *true*) [ -t 0 ] ;; *) [ ! -t 0 ] ;; esac && {GIVE}"
    client, _ = asked(tmp_path, script, interactiveMode="Always")
    with pytest.raises(AuthError, match="needs a terminal"):
        client.doors.current()
    with pytest.raises(UsageError, match="interactiveMode"):
        asked(tmp_path, script, interactiveMode="Sometimes")[0].doors.current()
    leader, follower = os.openpty()
    with os.fdopen(follower) as terminal:
        saved = os.dup(0)
        os.dup2(terminal.fileno(), 0)
        monkeypatch.setattr("sys.stdin", terminal)
        try:
            for mode in ("Always", "IfAvailable", "Never"):
                asked(tmp_path, script, interactiveMode=mode)[0].doors.current()
        finally:
            os.dup2(saved, 0)
            os.close(saved)
    os.close(leader)


def test_a_relative_program_lies_beside_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not beside the first of several."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first/config").write_text("clusters: []\n")
    asked(tmp_path, GIVE)
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/first/config:{tmp_path}/config")
    assert dict(Client().doors.current().headers) == {"Authorization": "Bearer t-1234567"}
