"""Whatever a kubeconfig holds, it is a cluster or one sentence: nothing is a defect of cvl's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvl.core.errors import AuthError, CvlError, MissingTool, UsageError
from cvl.providers.kubernetes.client import Client
from cvl.providers.kubernetes.kubeconfig import access, on

LISTS = ("contexts", "clusters", "users")
NOBODY = "https://127.0.0.1:1"


def config(**changed: object) -> dict[str, object]:
    """Return a good kubeconfig with some of its top-level values changed."""
    whole: dict[str, object] = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": NOBODY}}],
        "users": [{"name": "u", "user": {"token": "a-token"}}],
    }
    return {**whole, **changed}


def cluster(**entry: object) -> dict[str, object]:
    return config(clusters=[{"name": "c", "cluster": {"server": NOBODY, **entry}}])


def user(**entry: object) -> dict[str, object]:
    return config(users=[{"name": "u", "user": entry}])


def plugin(**entry: object) -> dict[str, object]:
    version = "client.authentication.k8s.io/v1"
    return user(exec={"apiVersion": version, "command": "true", **entry})


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]}}\n"
    for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
FILES: Mapping[str, bytes] = {
    "empty": b"",
    "comments": b"# nothing\n",
    "binary": bytes(range(256)),
    "no UTF-8": b"current-context: \xff\n",
    "UTF-16": "current-context: c\n".encode("utf-16"),
    "cut": json.dumps(config()).encode()[:40],
    "a list": b"[]",
    "a text": b"hello",
    "a number": b"5",
    "null": b"null",
    "two documents": b"a: 1\n---\nb: 2\n",
    "deep": b"[" * 100_000,
    "deep maps": b"{a: " * 100_000,
    "laughs": LAUGHS.encode(),
    "merges": MERGES.encode(),
    "a ring": b"clusters: &a [*a]\n",
    "a ring of maps": b"users: &a {name: *a}\n",
    "a tag": b"users: !!python/object/apply:os.system [true]\n",
    "a date": b"current-context: 2024-99-99\n",
    "a number of 9000 digits": b"current-context: " + b"9" * 9000,
    "9 MB": b"#" * (9 << 20),
    "an unhashable key": b"? [a]\n: b\n",
    "a key of null": b"null: null\n",
}
NO_SERVERS: tuple[object, ...] = (
    *(None, "", "x", "h:6443", "https://", "https://h:99999", "https://[::1", "ftp://h"),
    *([], {}, "https://a b", "https://h\nx", "https://\u2603", f"https://{'a' * 64}.b"),
)
ENTRIES: Mapping[str, object] = {
    **{f"{kind} null": config(**{kind: None}) for kind in LISTS},
    **{f"{kind} map": config(**{kind: {"c": {}}}) for kind in LISTS},
    **{f"{kind} text": config(**{kind: "x"}) for kind in LISTS},
    **{f"{kind} nulls": config(**{kind: [None, None]}) for kind in ("contexts", "clusters")},
    **{
        f"{kind} lists": config(**{kind: [[], ["c"]]}) for kind in ("contexts", "clusters", "users")
    },
    **{f"{kind} texts": config(**{kind: ["c", 5]}) for kind in LISTS},
    **{f"{kind} no name": config(**{kind: [{}]}) for kind in ("contexts", "clusters")},
    **{f"{kind} list": config(**{f"{kind}s": [{"name": "c", kind: []}]}) for kind in ("context",)},
    "a name that is a map": config(contexts=[{"name": {}, "context": {}}]),
    "a name that is a list": config(clusters=[{"name": ["c"], "cluster": {}}]),
    "a context of a number": config(contexts=[{"name": "c", "context": 5}]),
    "a context of null": config(contexts=[{"name": "c", "context": None}]),
    "a cluster that is not there": config(contexts=[{"name": "c", "context": {"cluster": "x"}}]),
    "a cluster that is a map": config(contexts=[{"name": "c", "context": {"cluster": {}}}]),
    "a user that is a list": config(
        contexts=[{"name": "c", "context": {"cluster": "c", "user": ["u"]}}]
    ),
    "a current context that is a list": config(**{"current-context": ["c"]}),
    "a current context that is null": config(**{"current-context": None}),
    **{f"server {str(each)[:20]!r}": cluster(server=each) for each in NO_SERVERS},
    "an authority that is no base64": cluster(**{"certificate-authority-data": "$$$"}),
    "an authority not in ASCII": cluster(**{"certificate-authority-data": "w6k="}),
    "a token file of bytes": user(tokenFile=sys.executable),
    "a program with a zero": plugin(command="/bin/true\0x"),
    "an argument with a zero": plugin(args=["a\0b"]),
    "a variable of no name": plugin(env=[{"name": "a=b\0", "value": "x"}]),
    "an authority that is none": cluster(**{"certificate-authority-data": "aGVsbG8="}),
    "an authority of bytes": cluster(**{"certificate-authority-data": "//79"}),
    "an authority that is a list": cluster(**{"certificate-authority-data": ["x"]}),
    "an authority that is a map": cluster(**{"certificate-authority": {}}),
    "an authority that is not there": cluster(**{"certificate-authority": "/nonexistent"}),
    "an authority that is a folder": cluster(**{"certificate-authority": "/"}),
    "an authority without end": cluster(**{"certificate-authority": "/dev/zero"}),
    "an authority of no path": cluster(**{"certificate-authority": "a\0b"}),
    "a truth that is none": cluster(**{"insecure-skip-tls-verify": "perhaps"}),
    "a truth that is a list": cluster(**{"insecure-skip-tls-verify": []}),
    "a server name that is a map": cluster(**{"tls-server-name": {}}),
    "a proxy that is a list": cluster(**{"proxy-url": []}),
    "a proxy that is none": cluster(**{"proxy-url": ":::"}),
    "extensions that are none": cluster(extensions=5),
    "a token that is a list": user(token=["x"]),
    "a token of two lines": user(token="a\nb"),
    "a token not in ASCII": user(token="\u2603"),
    "a token file without end": user(tokenFile="/dev/zero"),
    "a token file that is a folder": user(tokenFile="/"),
    "a token file that is not there": user(tokenFile="/nonexistent"),
    "a token file that is a map": user(tokenFile={}),
    "a user name that is a list": user(username=["x"], password={}),
    "a certificate that is no base64": user(
        **{"client-certificate-data": "$", "client-key-data": 5}
    ),
    "a certificate that is none": user(**{"client-certificate-data": "aGVsbG8="}),
    "a certificate that is a map": user(**{"client-certificate": {}}),
    "a certificate that is a folder": user(**{"client-certificate": "/", "client-key": "/"}),
    "a program that is a text": user(exec="aws"),
    "a program that is a list": user(exec=["aws"]),
    "a program without a name": plugin(command=None),
    "a program of an empty name": plugin(command=""),
    "a program that is a list of words": plugin(command=["aws", "eks"]),
    "a program that is a folder": plugin(command="/"),
    "a program that is not there": plugin(command="/nonexistent/x"),
    "a program that is nowhere": plugin(command="no-such-program-anywhere"),
    "arguments that are a text": plugin(args="get-token"),
    "arguments that are a map": plugin(args={"a": "b"}),
    "arguments of maps": plugin(args=[{}]),
    "variables that are a map": plugin(env={"A": "b"}),
    "variables that are texts": plugin(env=["A=b"]),
    "variables of null": plugin(env=[None]),
    "a variable without a name": plugin(env=[{"value": "x"}]),
    "a variable that is a map": plugin(env=[{"name": "A", "value": {}}]),
    "a version of a list": plugin(apiVersion=[]),
    "a version of old": plugin(apiVersion="client.authentication.k8s.io/v1alpha1"),
    "a cluster's truth that is none": plugin(provideClusterInfo="perhaps"),
    "a hint that is a map": plugin(command="no-such-program-anywhere", installHint={}),
    "an auth-provider": user(**{"auth-provider": "gcp"}),
    "an auth-provider of null": user(**{"auth-provider": {"config": None}}),
}


SAID: Mapping[str, str] = {
    "nothing": "",
    "garbage": "garbage",
    "null": "null",
    "a list": "[]",
    "a number": "5",
    "a status of null": '{"status": null}',
    "a status of a list": '{"status": []}',
    "a token of a number": '{"status": {"token": 5}}',
    "a token of a map": '{"status": {"token": {}}}',
    "no token": '{"status": {}}',
    "an expiry that is none": '{"status": {"token": "t", "expirationTimestamp": "soon"}}',
    "an expiry of a number": '{"status": {"token": "t", "expirationTimestamp": 5}}',
    "an expiry of no day": '{"status": {"token": "t", "expirationTimestamp": "2024-13-99"}}',
    "a certificate of a number": '{"status": {"clientCertificateData": 5, "clientKeyData": []}}',
    "no certificate": '{"status": {"clientCertificateData": "x", "clientKeyData": "y"}}',
    "deep": '{"status": ' + "[" * 100_000,
    "9000 digits": '{"status": ' + "9" * 9000 + "}",
}


def is_one_sentence(error: CvlError) -> None:
    assert "\n" not in str(error)
    assert "defect" not in str(error)
    assert len(str(error)) < 700


def asked(file: Path) -> CvlError:
    """Return the error of asking the cluster; nobody answers there."""
    began = time.monotonic()
    with pytest.raises(CvlError) as caught:
        Client(kubeconfig=str(file)).create("/api/v1/namespaces/x/pods", {})
    assert time.monotonic() - began < 20
    is_one_sentence(caught.value)
    return caught.value


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_no_bytes_of_a_kubeconfig_are_a_defect(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_bytes(data)
    assert isinstance(asked(file), UsageError)


@pytest.mark.parametrize("whole", ENTRIES.values(), ids=ENTRIES)
def test_no_entry_of_a_kubeconfig_is_a_defect(whole: object, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(json.dumps(whole))
    error = asked(file)
    ours = isinstance(error, UsageError | AuthError | MissingTool)
    assert ours or "no answer from" in str(error)


def test_a_folder_a_pipe_and_a_device_are_no_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvl.core.yaml_file.WAIT", 0.3)
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        assert isinstance(asked(file), UsageError)
    with (tmp_path / "pipe").open("r+b", buffering=0):  # somebody holds it and says nothing
        assert "nothing came within" in str(asked(tmp_path / "pipe"))


def test_a_kubeconfig_may_come_from_a_shell_s_pipe() -> None:
    """As `KUBECONFIG=<(aws eks …)` makes it."""
    out, into = os.pipe()
    with os.fdopen(into, "w") as slow:

        def write() -> None:
            slow.write(json.dumps(config()))
            slow.close()

        threading.Timer(0.2, write).start()
        assert access(named=f"/dev/fd/{out}").server == NOBODY
    os.close(out)


def test_one_broken_file_of_several_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, broken = tmp_path / "good", tmp_path / "broken"
    good.write_text(json.dumps(config()))
    broken.write_text("users: {a: b}\n")
    monkeypatch.setenv("KUBECONFIG", f"{good}:{broken}:{tmp_path}/absent")
    with pytest.raises(UsageError, match=r"broken: no kubeconfig: users must be a list"):
        access()


def test_what_has_no_meaning_where_it_stands_is_not_looked_at(tmp_path: Path) -> None:
    """As for kubectl, which has a place for none of these."""
    odd = {"client-key": {"a": "b"}, "tokenFile": ["x"], "exec": "x", "extensions": []}
    whole = config(
        clusters=[{"name": "c", "cluster": {"server": NOBODY, **odd}}],
        users=[{"name": "u", "user": {"token": "t", "certificate-authority": ["x"]}}],
        contexts=[
            {"name": "c", "context": {"cluster": "c", "user": "u", "exec": 5}},
            {"name": "d", "context": {"certificate-authority": {}}},
        ],
        preferences=5,
    )
    (tmp_path / "config").write_text(json.dumps(whole))
    found = access(named=str(tmp_path / "config"))
    assert (found.server, found.user) == (NOBODY, {"token": "t"})
    assert list(found.files) == [tmp_path / "config"]


def test_names_of_digits_are_names(tmp_path: Path) -> None:
    """Unquoted: YAML takes them for numbers."""
    (tmp_path / "config").write_text(
        "current-context: 007\n"
        "contexts: [{name: 007, context: {cluster: 1, user: 2024-01-01}}]\n"
        f"clusters: [{{name: 1, cluster: {{server: '{NOBODY}', insecure-skip-tls-verify: yes}}}}]\n"
        "users: [{name: 2024-01-01, user: {token: 1234567890}}, null]\n"
    )
    found = access(named=str(tmp_path / "config"))
    assert (found.context, found.user["token"]) == ("007", "1234567890")
    assert on(found.cluster, "insecure-skip-tls-verify")


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_no_words_of_a_credential_program_are_a_defect(said: str, tmp_path: Path) -> None:
    program, words = tmp_path / "plugin", tmp_path / "words"
    words.write_text(said)
    program.write_text(f'#!/bin/sh\nexec cat "{words}"\n')
    program.chmod(0o755)
    (tmp_path / "config").write_text(json.dumps(plugin(command=str(program))))
    assert isinstance(asked(tmp_path / "config"), AuthError)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
flat = st.lists(leaves, max_size=3) | st.dictionaries(st.text(), leaves, max_size=3)
nested = st.lists(flat, max_size=2) | st.dictionaries(st.text(), flat, max_size=2)
values = leaves | flat | nested
NAMES = ("server", "certificate-authority-data", "tls-server-name", "proxy-url", "extensions")
USERS = ("token", "tokenFile", "exec", "username", "client-certificate-data", "as", "as-groups")


@given(
    top=st.dictionaries(st.sampled_from([*config()]), values, max_size=2),
    one=st.dictionaries(st.sampled_from(NAMES), values, max_size=3),
    who=st.dictionaries(st.sampled_from(USERS), values, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_any_values_are_a_cluster_or_one_sentence(
    top: dict[str, object],
    one: dict[str, object],
    who: dict[str, object],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    whole = {
        **config(),
        "clusters": [{"name": "c", "cluster": {"server": NOBODY, **one}}],
        "users": [{"name": "u", "user": who}],
        **top,
    }
    file = tmp_path_factory.mktemp("any") / "config"
    file.write_text(json.dumps(whole))
    asked(file)


def test_a_broken_kubeconfig_is_one_line_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(json.dumps(config(users={"a": "b"})))
    env = {**os.environ, "KUBECONFIG": str(tmp_path / "config"), "CVL_STATE_DIR": str(tmp_path)}
    argv = [sys.executable, "-m", "cvl", "reap", "-y"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "config: no kubeconfig: users must be a list" in done.stderr
    assert "defect" not in done.stderr


def test_a_port_without_a_server_is_not_connected(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
    (tmp_path / "config").write_text(json.dumps(cluster(server=f"https://[::1]:{port}/a/b")))
    assert f"no answer from https://[::1]:{port}/a/b" in str(asked(tmp_path / "config"))
