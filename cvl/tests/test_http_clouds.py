"""Whatever asks a provider goes through the proxy, and takes a key that was replaced."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from cvl.cleanup.reap_timer import environment_text
from cvl.core.errors import Ambiguity, AuthError, Rejected
from cvl.providers.lambda_cloud.api import LAUNCH, LambdaAPI
from cvl.providers.lambda_cloud.cloud import api
from cvl.providers.lambda_cloud.key import another, configured, lambda_key
from cvl.testing.connect_proxy import ConnectProxy
from cvl.testing.kubernetes.certificates import authority

OLD, NEW = "secret_old_0123456789", "secret_new_0123456789"
HIDDEN = "proxy-password-1"


class Cloud(BaseHTTPRequestHandler):
    """Answers whoever has the new key."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        good = NEW in self.headers["Authorization"]
        code = "global/invalid-api-key"
        answer: object = {"data": ["here"]} if good else {"error": {"code": code, "message": "no"}}
        self._answer(200 if good else 401, json.dumps(answer).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: bytes) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with TLS for the names of `certificates.NAMES`; this machine trusts it."""
    certificate, tls = authority(tmp_path)
    (tmp_path / "ca.pem").write_bytes(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    Cloud.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Cloud) as made:
        made.socket = tls.wrap_socket(made.socket, server_side=True)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made.server_address[1]
        made.shutdown()


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """The only way to that server under the name `kubernetes`, for whoever logs in."""
    names = {"kubernetes:443": server}
    with ConnectProxy(names=names, login=f"me:{HIDDEN}") as made:
        monkeypatch.setenv("HTTPS_PROXY", made.url(f"me:{HIDDEN}"))
        for name in ("https_proxy", "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield made


def account(key: str = NEW, port: int = 443) -> LambdaAPI:
    return LambdaAPI(
        key, f"https://kubernetes:{port}/api", interval=0, launch_interval=0, another=another
    )


def test_the_lambda_api_is_asked_through_the_proxy(proxy: ConnectProxy) -> None:
    assert account().get("/instances") == ["here"]
    assert proxy.places == ["kubernetes:443"]
    assert Cloud.asked == ["GET /api/instances"]


def test_what_no_proxy_names_is_asked_directly(
    proxy: ConnectProxy, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,127.0.0.0/8")
    url = f"https://127.0.0.1:{server}/api"
    direct = LambdaAPI(NEW, url, interval=0, launch_interval=0, another=another)
    assert direct.get("/instances") == ["here"]
    assert not proxy.places


def test_what_a_proxy_says_is_told_without_its_password(proxy: ConnectProxy) -> None:
    proxy.answer = "403 No clouds here"
    with pytest.raises(Rejected, match=r"cannot be reached: the proxy .* 403 No clouds") as caught:
        account().get("/instances")
    assert HIDDEN not in str(caught.value)


def test_a_key_that_was_replaced_is_read_again(
    proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del proxy
    file = tmp_path / "key"
    file.write_text(OLD + "\n")
    monkeypatch.delenv("LAMBDA_API_KEY", raising=False)
    monkeypatch.setenv("LAMBDA_API_KEY_FILE", str(file))
    monkeypatch.setenv("LAMBDA_API_BASE", "https://kubernetes/api")
    monkeypatch.setenv("LAMBDA_API_RPS", "0")
    assert configured()
    assert lambda_key() == OLD
    here = api()
    with pytest.raises(AuthError):
        here.get("/instances")
    file.write_text(NEW + "\n")
    assert here.get("/instances") == ["here"]
    assert here.key == NEW


def test_a_timers_newer_key_is_taken(
    proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a guardian, which got its key through a pipe before that was replaced."""
    del proxy
    monkeypatch.setenv("CVL_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("LAMBDA_API_KEY_FILE", raising=False)
    here = account(OLD)
    with pytest.raises(AuthError):
        here.get("/instances")
    (tmp_path / "reap.env").write_text(environment_text({}, {"LAMBDA_API_KEY": NEW}))
    assert here.post("/instance-operations/terminate", {}) == ["here"]


def test_a_refused_launch_is_not_sent_again_but_what_follows_has_the_new_key(
    proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del proxy
    file = tmp_path / "key"
    file.write_text(NEW)
    monkeypatch.setenv("LAMBDA_API_KEY_FILE", str(file))
    here = account(OLD)
    with pytest.raises(Ambiguity):
        here.once(LAUNCH, {})
    assert Cloud.asked == [f"POST /api{LAUNCH}"]
    assert here.get("/instances") == ["here"]


def test_a_timer_dials_as_we_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text = environment_text(
        {"HTTPS_PROXY": "http://p:1", "no_proxy": "x", "SSL_CERT_FILE": "ca"}, {}
    )
    assert "HTTPS_PROXY='http://p:1'\n" in text
    assert "no_proxy='x'\n" in text
    assert f"SSL_CERT_FILE='{tmp_path}/ca'\n" in text


def test_nothing_else_of_ours_dials() -> None:
    """All that speaks HTTP goes through `cvl.core.http`; the rest is what that is made of."""
    here = Path(__file__).parent.parent
    ways = ["PoolManager(", "ProxyManager(", "HTTPSConnection(", "HTTPConnection(", "urlopen("]
    ways += ["create_connection(", "create_default_context(", "getproxies", "import http.client"]
    found = {
        str(path.relative_to(here))
        for path in here.rglob("*.py")
        if not {"tests", "testing"} & set(path.relative_to(here).parts)
        and any(way in path.read_text("utf-8") for way in ways)
    }
    assert found == {f"core/http/{name}.py" for name in ("connection", "pool", "tls")}
