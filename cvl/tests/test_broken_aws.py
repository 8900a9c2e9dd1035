"""Whatever an AWS configuration holds, it is one sentence: nothing is a defect of cvl."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cvl.core.errors import AuthError, CvlError, MissingTool, Rejected, Unreachable, UsageError
from cvl.core.spec import Cause
from cvl.providers.aws import credential_process, login
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker.job import TrainingJob
from cvl.testing.cli_harness import wait_for

PAIR = "aws_access_key_id = AKIAX\naws_secret_access_key = secret-secret\n"
ROLE = "role_arn = arn:aws:iam::123456789012:role/x\n"
SOURCE = f"source_profile = b\n[profile b]\n{PAIR}"
SSO = "sso_account_id = 1\nsso_role_name = x\n"
LOOP = f"{ROLE}source_profile = b\n[profile b]\n{ROLE}source_profile = default\n"
PROFILES: Mapping[str, str] = {
    "half a pair": "aws_access_key_id = AKIAX\n",
    "the other half": "aws_secret_access_key = x\n",
    "a key not in ASCII": "aws_access_key_id = é\naws_secret_access_key = ü\n",
    "a key with a control character": "aws_access_key_id = a\x01b\naws_secret_access_key = x\n",
    "a loop": LOOP,
    "its own source": f"{ROLE}source_profile = default\n",
    "an unknown source": f"{ROLE}source_profile = nobody\n",
    "no source": ROLE,
    "two sources": f"{ROLE}source_profile = default\ncredential_source = Environment\n",
    "a source that there is not": f"{ROLE}credential_source = Nowhere\n",
    "an empty environment": f"{ROLE}credential_source = Environment\n",
    "no container": f"{ROLE}credential_source = EcsContainer\n",
    "a source without anything": f"{ROLE}source_profile = b\n[profile b]\nregion = x\n",
    "a role that is none": f"role_arn = garbage\n{SOURCE}",
    "a role for 5 s": f"{ROLE}duration_seconds = 5\n{SOURCE}",
    "a second factor": f"{ROLE}mfa_serial = arn:aws:iam::1:mfa/x\n{SOURCE}",
    "sso without a login": f"{SSO}sso_start_url = https://x\nsso_region = us-east-1\n",
    "half of sso": "sso_start_url = https://x\nsso_account_id = 1\n",
    "an unknown sso session": f"sso_session = nobody\n{SSO}",
    "half an sso session": f"sso_session = z\n{SSO}[sso-session z]\nsso_region = us-east-1\n",
    "two sso": f"sso_session = z\n{SSO}sso_region = eu\n[sso-session z]\nsso_region = us-east-1\n",
    "a web token that is not there": f"{ROLE}web_identity_token_file = /nonexistent\n",
    "a web token that is a folder": f"{ROLE}web_identity_token_file = /\n",
    "a web token without a role": "web_identity_token_file = /etc/hostname\n",
    "a login session": "login_session = arn:aws:sts::1:x\n",
    "an odd region": f"region = us east 1!\n{PAIR}",
    "a region of dots": f"region = ../../x\n{PAIR}",
    "a region not in ASCII": f"region = é\n{PAIR}",
    "a long region": f"region = {'x' * 3000}\n{PAIR}",
    "a region that is a map": f"region =\n  a = b\n{PAIR}",
    "an endpoint that is none": f"endpoint_url = garbage\n{PAIR}",
    "an endpoint of half an IPv6": f"endpoint_url = http://[::1\n{PAIR}",
    "an endpoint of no port": f"endpoint_url = https://127.0.0.1:99999\n{PAIR}",
    "an endpoint that is a map": f"endpoint_url =\n  a = b\n{PAIR}",
    "unknown services": f"services = z\n{PAIR}",
    "an addressing that is none": f"s3 =\n  addressing_style = z\n{PAIR}",
    "s3 that is a text": f"s3 = z\n{PAIR}",
    "a retry mode": f"retry_mode = z\n{PAIR}",
    "a defaults mode": f"defaults_mode = z\n{PAIR}",
    "a metadata endpoint": "ec2_metadata_service_endpoint = garbage\n",
    "a metadata mode": "ec2_metadata_service_endpoint_mode = z\n",
    "a metadata time": "metadata_service_timeout = z\n",
    "sts of no region": f"sts_regional_endpoints = z\n{PAIR}",
    "a checksum": f"request_checksum_calculation = z\n{PAIR}",
    "a compression": f"request_min_compression_size_bytes = z\n{PAIR}",
    "an account mode": f"account_id_endpoint_mode = z\n{PAIR}",
    "versions that are a text": f"api_versions = z\n{PAIR}",
    "a program that is a map": "credential_process =\n  a = b\n",
    "an open quote": 'credential_process = "/x\n',
    "an empty program": "credential_process =\n",
    "a program that is not there": "credential_process = /nonexistent/x\n",
    "a program that is a folder": "credential_process = /\n",
}
FILES: Mapping[str, bytes] = {
    "no section": b"a = b\n",
    "binary": bytes(range(256)),
    "UTF-16": "[default]\n".encode("utf-16"),
    "twice": b"[default]\n[default]\n",
    "not closed": b"[default\n",
    "a map of nothing": b"[default]\ns3 =\n  foo\n",
    "an open quote in a name": b"[profile 'x]\nregion = y\n",
}
PROGRAMS: Mapping[str, str] = {
    "fails": "echo oops >&2; exit 3",
    "fails without a word": "exit 3",
    "is killed": "kill -9 $$",
    "fails in bytes": "printf '\\377\\376' >&2; exit 1",
    "fails at length": "yes no | head -c 90000 >&2; exit 1",
    "nothing": "true",
    "no JSON": "echo hello",
    "bytes": "printf '\\377\\376'",
    "null": "echo null",
    "a list": "echo '[]'",
    "a number": "echo 1",
    "another version": "echo '{\"Version\": 2}'",
    "a version of a list": "echo '{\"Version\": []}'",
    "half a pair": 'echo \'{"Version": 1, "AccessKeyId": "a"}\'',
    "keys that are none": 'echo \'{"Version": 1, "AccessKeyId": 5, "SecretAccessKey": []}\'',
    "keys of two lines": 'echo \'{"Version": 1, "AccessKeyId": "a\\nb", "SecretAccessKey": "b"}\'',
    "deep": "yes '[' | head -n 100000 | tr -d '\\n'",
    "9000 digits": "yes 9 | head -n 9000 | tr -d '\\n'",
    "without end": "exec yes",
    "words without end": "exec yes >&2",
    **{
        f"an expiry {due}": "echo '{"
        f'"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": {due}'
        "}'"
        for due in ('"soon"', "5", "[]", '"2001-01-01T00:00:00Z"', '"99999-01-01T00:00:00Z"')
    },
}
NO_FILES = ["/", "/dev/null", "/nonexistent/x", "~nobody-at-all/x", "a" * 5000]
OURS = (AuthError, UsageError, MissingTool, Rejected)


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No AWS but that of the test, and nowhere to go."""
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def profile(tmp_path: Path, text: str) -> None:
    region = "" if text.startswith("region") else "region = us-east-1\n"
    (tmp_path / "config").write_text(f"[default]\n{region}{text}")


def said(account: Account) -> CvlError:
    """Return the error of asking AWS for something; nobody answers there."""
    began = time.monotonic()
    with pytest.raises(CvlError) as caught:
        account.once("sagemaker", "list_training_jobs")
    assert time.monotonic() - began < 30
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert caught.value.hint or isinstance(caught.value, Rejected | Unreachable)
    return caught.value


@pytest.mark.parametrize("text", PROFILES.values(), ids=PROFILES)
def test_no_profile_is_a_defect_or_asked_again(text: str, tmp_path: Path) -> None:
    profile(tmp_path, text)
    error = said(Account())
    if text != PROFILES["s3 that is a text"]:
        assert isinstance(error, OURS), error
    try:
        Account().has_credentials()
    except CvlError as again:
        assert "\n" not in str(again)  # noqa: PT017


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@pytest.mark.parametrize("name", ["config", "absent"])
def test_no_file_is_left_to_a_library(name: str, data: bytes, tmp_path: Path) -> None:
    profile(tmp_path, PAIR)
    (tmp_path / name).write_bytes(data)
    assert isinstance(said(Account("us-east-1")), (*OURS, Unreachable))


@pytest.mark.parametrize("name", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
@pytest.mark.parametrize("path", NO_FILES)
def test_a_file_that_is_none_is_no_defect(
    name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, path)
    assert isinstance(said(Account("us-east-1")), OURS)


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    profile(tmp_path, PAIR)
    error = said(Account(profile="nobody"))
    assert isinstance(error, AuthError)
    assert "nobody" in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ACCESS_KEY_ID", "AKIAX"),
        ("AWS_MAX_ATTEMPTS", "x"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "x"),
        ("AWS_RETRY_MODE", "x"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "garbage"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/x"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent"),
        ("AWS_ENDPOINT_URL", "garbage"),
        ("AWS_ENDPOINT_URL_SAGEMAKER", "garbage"),
        ("AWS_DATA_PATH", "/nonexistent"),
        ("AWS_REGION", "x/y"),
        ("AWS_DEFAULTS_MODE", "x"),
        ("AWS_USE_FIPS_ENDPOINT", "x"),
    ],
)
def test_no_variable_is_a_defect(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(name, value)
    said(Account())


@pytest.mark.parametrize("script", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("source", [False, True], ids=["", "of a source profile"])
def test_no_credential_program_is_a_defect_or_asked_again(
    script: str, source: bool, tmp_path: Path
) -> None:
    made = tmp_path / "program"
    made.write_text(f"#!/bin/sh\n{script}\n")
    made.chmod(0o755)
    line = f"credential_process = {made}\n"
    profile(tmp_path, f"{ROLE}source_profile = b\n[profile b]\n{line}" if source else line)
    error = said(Account())
    assert isinstance(error, AuthError | UsageError), error


HANGS: Mapping[str, str] = {
    "itself": "exec sleep 1000",
    "a child of it": "sleep 1000; true",
    "deaf to TERM": "trap '' TERM HUP INT; sleep 1000; sleep 1000",
    "with closed pipes": "exec >&- 2>&-; exec sleep 1000",
    "dripping": "while :; do printf x; sleep 0.05; done",
}


@pytest.mark.parametrize("script", HANGS.values(), ids=HANGS)
def test_a_program_that_hangs_is_ended_with_all_that_it_started(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_process, "LIMIT", 0.5)
    monkeypatch.setenv("CVL_TEST_MARK", str(tmp_path))
    made = tmp_path / "program"
    made.write_text(f"#!/bin/sh\n{script}\n")
    made.chmod(0o755)
    profile(tmp_path, f"credential_process = {made}\n")
    began = time.monotonic()
    assert "no answer within" in str(said(Account()))
    assert time.monotonic() - began < 10
    wait_for(lambda: not marked(tmp_path), 10)


def marked(mark: Path) -> list[str]:
    """Return the processes, but this one, whose environment holds a mark."""
    found, wanted = [], f"CVL_TEST_MARK={mark}".encode()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = Path(entry.path, "environ").read_bytes()
            except OSError:
                continue
            found += [entry.name] if wanted in environment.split(b"\0") else []
    return found


def test_a_child_that_keeps_the_pipes_is_not_waited_for(tmp_path: Path) -> None:
    made = tmp_path / "program"
    answer = '{"Version": 1, "AccessKeyId": "AKIAX", "SecretAccessKey": "secret-secret"}'
    made.write_text(f"#!/bin/sh\nsleep 1000 &\necho '{answer}'\n")
    made.chmod(0o755)
    profile(tmp_path, f"credential_process = {made}\n")
    began = time.monotonic()
    assert Account().has_credentials()
    assert time.monotonic() - began < 10


def test_credentials_that_never_come_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's server that takes the connection and then says nothing."""
    monkeypatch.setattr(login, "LIMIT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        error = said(Account("us-east-1"))
    assert isinstance(error, AuthError)
    assert "none within" in str(error)


@pytest.mark.parametrize("bundle", ["/nonexistent", "/", "/dev/null", __file__])
def test_an_authority_that_is_none_is_not_asked_again(
    bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(tmp_path, PAIR)
    monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        account = Account("us-east-1", endpoint=address)
        assert isinstance(said(account), UsageError)


def test_a_certificate_of_nobody_s_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(tmp_path, PAIR)
    pair = tmp_path / "pair.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-keyout", str(pair), "-out", str(tmp_path / "c.pem"))
    words = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject)
    subprocess.run(words, check=True, capture_output=True)
    pair.write_text(pair.read_text() + (tmp_path / "c.pem").read_text())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            made, _ = server.accept()
            with made:
                try:
                    context.wrap_socket(made, server_side=True).close()
                except OSError:
                    return

        thread = Thread(target=serve, daemon=True)
        thread.start()
        error = said(Account("us-east-1", endpoint=f"https://127.0.0.1:{server.getsockname()[1]}"))
        thread.join(10)
    assert isinstance(error, AuthError)


def test_where_nobody_listens_it_may_pass(tmp_path: Path) -> None:
    profile(tmp_path, PAIR)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
    assert isinstance(said(Account("us-east-1", endpoint=address)), Unreachable)


@pytest.fixture
def hollow() -> Iterator[str]:
    """Return the address of an AWS whose answers have nothing in them."""

    class Hollow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is there
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Hollow) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("what", ["poll", "stop", "account"])
def test_an_answer_that_lacks_everything_may_be_another_next_time(
    what: str, hollow: str, tmp_path: Path
) -> None:
    profile(tmp_path, PAIR)
    account = Account("us-east-1", endpoint=hollow)
    handle = {"run": "one-1129-120000-0123456789", "job": "cvl-one", "nodes": "1"}
    job = TrainingJob(account, handle)
    calls: Mapping[str, Callable[[], object]] = {
        "poll": job.poll,
        "stop": lambda: job.stop(1.0, Cause.STOPPED),
        "account": account.number,
    }
    with pytest.raises(Unreachable):
        calls[what]()
