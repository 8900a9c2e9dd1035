"""Keys of AWS and tokens of clusters: refused when no header can hold them, and never shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cvl.core.errors import UsageError
from cvl.providers.aws.session import Account
from cvl.providers.kubernetes.client import Client
from cvl.providers.kubernetes.credentials import Granted, headers
from cvl.providers.kubernetes.kubeconfig import Access, access
from cvl.testing.cli_harness import Desk
from cvl.tests.clouds import INSTANCE
from cvl.tests.test_secrets import BAD, KEY, REFUSED, WRAPPED, shown_by

ROLE = "arn:aws:iam::123456789012:role/r"
SAGEMAKER = ("--sagemaker", "--role-arn", ROLE, "--instance-type", INSTANCE, "--image-uri", "i")
RUN = ("run", "-y", *SAGEMAKER, "--output-path", "s3://bucket/a", "one", "sh", "true")
AWS = {
    "AWS_ACCESS_KEY_ID": "AKIA",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_SESSION_TOKEN": "t",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
}
WORDS = {"run": RUN, "dry": ("run", "--dry-run", *RUN[2:]), "reap": ("reap", "-y")}


@pytest.mark.parametrize("command", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize(
    "name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
)
@pytest.mark.parametrize("bad", ["a return in it", "not ASCII", "bytes that are no text"])
def test_a_key_of_aws_is_never_shown(
    bad: str, name: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("boto3")
    desk = Desk(folder=tmp_path, options=(), env={**AWS, name: BAD[bad]})
    done = desk.cvl(*command)
    assert shown_by(done, desk) == []
    assert f"{name} is no key" in done.err + done.out.decode()


@pytest.mark.parametrize("value", WRAPPED.values(), ids=WRAPPED)
def test_white_space_around_a_key_of_aws_is_left_out(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    for name, plain in AWS.items():
        monkeypatch.setenv(name, plain)
    monkeypatch.setenv("AWS_SESSION_TOKEN", value)
    account = Account()
    account.client("s3")
    assert account._opened().get_credentials().token == KEY


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"])
@pytest.mark.parametrize("url", [each for each in REFUSED if each.startswith("http://")])
def test_aws_is_spoken_to_encrypted_or_not_at_all(
    url: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    for name, plain in AWS.items():
        monkeypatch.setenv(name, plain)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(variable, url)
    with pytest.raises((UsageError, ValueError)):
        Account().client("sts")


def configured(folder: Path, user: Mapping[str, object], server: str) -> Path:
    """Write a kubeconfig: JSON is YAML."""
    file = folder / "kubeconfig"
    cluster = {"server": server, "insecure-skip-tls-verify": True}
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    file.write_text(json.dumps(content))
    return file


def by_plugin(folder: Path, value: str) -> Mapping[str, object]:
    """Return a user whose token a program gives."""
    told = {"status": {"token": value}}
    (folder / "told").write_text(json.dumps(told))
    command = {"command": "cat", "args": [str(folder / "told")]}
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **command}}


def by_file(folder: Path, value: str) -> Mapping[str, object]:
    """Return a user whose token lies in a file."""
    (folder / "token").write_text(value)
    return {"tokenFile": str(folder / "token")}


USERS: Mapping[str, Callable[[Path, str], Mapping[str, object]]] = {
    "in it": lambda _folder, value: {"token": value},
    "plugin": by_plugin,
    "file": by_file,
}
KUBE = {
    "run": ("run", "-y", "--k8s", "--image", "i", "one", "sh", "true"),
    "reap": ("reap", "-y"),
}


@pytest.mark.parametrize("command", KUBE.values(), ids=KUBE)
@pytest.mark.parametrize("user", USERS.values(), ids=USERS)
@pytest.mark.parametrize("bad", ["a return in it", "a space in it", "not ASCII"])
def test_the_token_of_a_cluster_is_never_shown(
    bad: str,
    user: Callable[[Path, str], Mapping[str, object]],
    command: tuple[str, ...],
    tmp_path: Path,
) -> None:
    file = configured(tmp_path, user(tmp_path, BAD[bad]), "https://127.0.0.1:1")
    desk = Desk(folder=tmp_path, options=(), env={"KUBECONFIG": str(file)})
    done = desk.cvl(*command)
    assert shown_by(done, desk) == []
    assert "the token of the kubeconfig is no key" in done.err


@pytest.mark.parametrize("value", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("user", USERS.values(), ids=USERS)
def test_white_space_around_a_token_is_left_out(
    user: Callable[[Path, str], Mapping[str, object]], value: str, tmp_path: Path
) -> None:
    file = configured(tmp_path, user(tmp_path, value), "https://127.0.0.1:1")
    assert dict(Client(kubeconfig=str(file)).doors.current().headers) == {
        "Authorization": f"Bearer {KEY}"
    }


CLEAR = [each for each in REFUSED if each.lower().startswith("http://")]


@pytest.mark.parametrize("user", [{"token": KEY}, {"username": "me", "password": KEY}])
@pytest.mark.parametrize("server", CLEAR)
def test_nobody_on_the_way_reads_the_token(server: str, user: Mapping[str, object]) -> None:
    entry = Access(context="c", server=server, cluster={}, user=user)
    with pytest.raises(UsageError, match="the server of context c is"):
        headers(entry, Granted())
    nobody = Access(context="c", server=server, cluster={}, user={})
    assert not headers(nobody, Granted())


def test_a_cluster_on_this_machine_may_be_spoken_to_plainly(tmp_path: Path) -> None:
    file = configured(tmp_path, {"token": KEY}, "http://127.0.0.1:8001")
    assert dict(headers(access(named=str(file)), Granted())) == {"Authorization": f"Bearer {KEY}"}


def test_a_program_that_gives_no_answer_is_told_without_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvl.providers.kubernetes.exec_plugin.SILENCE_LIMIT", 0.1)
    command = {"command": "sh", "args": ["-c", "sleep 5", KEY]}
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **command}}
    file = configured(tmp_path, user, "https://127.0.0.1:1")
    with pytest.raises(Exception, match="no answer within") as told:
        Client(kubeconfig=str(file)).doors.current()
    assert KEY not in repr(told.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("HTTPS://127.0.0.1:6443/", "https://127.0.0.1:6443"),
        ("https://host/k8s/A/", "https://host/k8s/A"),
    ],
)
def test_the_address_of_a_cluster_has_one_spelling(written: str, read: str, tmp_path: Path) -> None:
    assert access(named=str(configured(tmp_path, {}, written))).server == read
