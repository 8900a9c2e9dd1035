"""How AWS is dialled, and a login that is renewed while somebody waits."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cvl.core.errors import AuthError, CvlError, UsageError
from cvl.core.scope import Scope
from cvl.providers.aws import http
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker import registry
from cvl.testing.connect_proxy import ConnectProxy

pytest.importorskip("boto3")
KEYS = "[default]\naws_access_key_id = {}\naws_secret_access_key = x\n"
URL = "https://sts.eu-west-1.amazonaws.com"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own."""
    names = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")
    for name in (*names, *map(str.upper, names), *http.ITS_OWN, *http.OURS):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(KEYS.format("A1"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


PROXY = "http://me:pass%2Fword-1@proxy.example:3128"


@pytest.mark.parametrize(
    ("variables", "led"),
    [
        ({}, None),
        ({"HTTPS_PROXY": PROXY}, {"https": PROXY}),
        ({"ALL_PROXY": PROXY}, {"https": PROXY}),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, {}),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".amazonaws.com:443"}, {}),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, {"https": PROXY}),
        ({"ALL_PROXY": "socks5://proxy.example"}, {}),
    ],
)
def test_the_same_rules_hold_for_its_library(
    variables: Mapping[str, str], led: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert http.proxies(URL) == led


def test_what_its_library_does_not_know_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:pass-word-1@proxy.example")
    with pytest.raises(UsageError, match="HTTPS_PROXY names a socks5 proxy") as caught:
        Account("eu-west-1").call("sts", "get_caller_identity")
    assert "pass-word-1" not in str(caught.value)


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy(answer="403 No clouds", login="me:pass-word-1") as made:
        yield made


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("service", "operation", "host"),
    [
        ("sts", "get_caller_identity", "sts.eu-west-1.amazonaws.com:443"),
        ("s3", "list_buckets", "s3.eu-west-1.amazonaws.com:443"),
        ("pricing", "describe_services", "api.pricing.eu-central-1.amazonaws.com:443"),
    ],
)
def test_services_are_asked_through_the_proxy(
    name: str,
    service: str,
    operation: str,
    host: str,
    proxy: ConnectProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, proxy.url("me:pass-word-1"))
    where = {"region": "eu-central-1"} if service == "pricing" else {}
    with pytest.raises(CvlError) as caught:
        Account("eu-west-1").once(service, operation, **where)
    assert proxy.places == [host]
    assert "pass-word-1" not in str(caught.value)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_role_is_asked_for_through_the_proxy(
    name: str, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[profile r]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = default\n"
        "region = eu-west-1\n"
    )
    monkeypatch.setenv(name, proxy.url("me:pass-word-1"))
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    with pytest.raises(CvlError):
        Account(profile="r").once("s3", "list_buckets")
    assert {place.partition(".")[0] for place in proxy.places} == {"sts"}


def test_authorities_are_those_of_all_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("x")
    account = Account("eu-west-1")
    session = account._opened()
    assert http.authorities(session) is None
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert http.authorities(session) == str(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
    assert http.authorities(session) is None


# --- a new login ---------------------------------------------------------------------------------


class Service:
    """Stands for AWS: heeds one access key."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.good, self.asked = "A1", list[str]()

        def sent(account: Account, _client: Any, *_more: Any) -> Mapping[str, Any]:
            key = account._who.access_key if account._who else ""
            self.asked.append(key)
            if key != self.good:
                raise AuthError("ExpiredToken")
            return {}

        monkeypatch.setattr(Account, "_send", sent)


def test_a_login_that_was_renewed_is_taken_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service, account = Service(monkeypatch), Account("eu-west-1")
    account.once("sts", "get_caller_identity")
    service.good = "A2"
    with pytest.raises(AuthError):
        account.once("sts", "get_caller_identity")
    assert service.asked == ["A1", "A1"], "nothing new was shown"
    (tmp_path / "credentials").write_text(KEYS.format("A2"))
    account.once("sts", "get_caller_identity")
    service.good = "A3"
    (tmp_path / "credentials").write_text(KEYS.format("A3"))
    account.once("sts", "get_caller_identity")
    assert service.asked == ["A1", "A1", "A1", "A2", "A2", "A3"]


def test_a_body_is_sent_from_its_beginning_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service, account = Service(monkeypatch), Account("eu-west-1")
    account.once("sts", "get_caller_identity")
    service.good = "A2"
    (tmp_path / "credentials").write_text(KEYS.format("A2"))
    with (tmp_path / "credentials").open("rb") as body:
        body.read()
        account.once("s3", "put_object", Body=body)
        assert body.tell() == 0


def test_credentials_that_came_meanwhile_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service, account = Service(monkeypatch), Account("eu-west-1")
    (tmp_path / "credentials").write_text("")
    with pytest.raises(AuthError):
        account.once("sts", "get_caller_identity")
    (tmp_path / "credentials").write_text(KEYS.format("A1"))
    account.once("sts", "get_caller_identity")
    assert service.asked[-1] == "A1"


def test_a_registry_is_opened_anew_once_the_image_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A build may take hours, and a login to the registry ends with the session that gave it."""
    done: list[str] = []
    token = base64.b64encode(b"AWS:a-password").decode()

    class Recorded:
        def call(self, service: str, operation: str, **_more: object) -> Any:
            done.append(f"{service} {operation}")
            return {"authorizationData": [{"authorizationToken": token}]}

    (tmp_path / "docker").write_text('#!/bin/sh\necho "$*" >>"$0.said"\ncat "$DOCKER_CONFIG"/*\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    recorded: Any = Recorded()
    told: list[str] = []
    scope = Scope(tell=lambda _phase, text: told.append(text))
    registry.push(recorded, "registry.example/cvl:tag", scope)
    assert done == ["ecr get_authorization_token"]
    assert (tmp_path / "docker.said").read_text() == "push registry.example/cvl:tag\n"
    assert json.loads(told[0])["auths"] == {"registry.example": {"auth": token}}
