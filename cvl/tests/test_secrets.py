"""The account's key stays in our own process: no child sees it, no core file holds it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import which
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvl.cleanup.guardian_client import environment
from cvl.cli.console import StatusLine
from cvl.core import secrets
from cvl.core.api_key import checked
from cvl.core.errors import LONGEST, Ambiguity, CvlError, UsageError, said
from cvl.core.spec import ExitStatus
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.takeover import Log
from cvl.providers.lambda_cloud.api import LambdaAPI
from cvl.providers.lambda_cloud.cloud import api
from cvl.testing.cli_harness import Desk, Done
from cvl.testing.lambda_cloud import FAULTS, LambdaCloud, Settings
from cvl.tests.fakes import FakeClock

WITNESS = """#!/bin/sh
{ env; echo "core files: $(ulimit -S -c)"; } >>"$WITNESS"
exec %s "$@"
"""


@pytest.fixture(autouse=True)
def _knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test has learned helps no other."""
    monkeypatch.setattr(secrets, "_KNOWN", {})


def test_no_child_of_ours_inherits_the_key(tmp_path: Path) -> None:
    """Seen by the first program that a run on a rented machine starts."""
    keygen = which("ssh-keygen")
    assert keygen
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh-keygen").write_text(WITNESS % keygen)
    (tmp_path / "bin" / "ssh-keygen").chmod(0o755)
    with LambdaCloud(Settings(request_interval=0, launch_interval=0)) as cloud:
        cloud.inject(FAULTS["launch-quota"])
        env = {
            **cloud.env,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "WITNESS": str(tmp_path / "seen"),
            "LAMBDA_API_RPS": "0",
            "LAMBDA_SETTLE": "0.2",
        }
        desk = Desk(folder=tmp_path, options=("-y", "--remote", "lambda"), env=env)
        words = [sys.executable, "-m", "cvl", "run", *desk.options, "one", "sh", "true"]
        done = subprocess.run(
            ["sh", "-c", 'ulimit -S -c 1; exec "$@"', "sh", *words],
            cwd=desk.repo,
            env=desk.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, "quota" in done.stderr.lower()) == (125, True), done.stderr
        seen = (tmp_path / "seen").read_text()
        assert "WITNESS=" in seen
        assert cloud.key not in seen + done.stderr + done.stdout
        assert seen.count("core files: 0\n") == 2


def test_in_somebody_else_s_process_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "s3cret")
    assert secrets.secret("A_SECRET") == "s3cret"
    assert os.environ["A_SECRET"] == "s3cret"
    assert secrets.secret("NO_SECRET") == ""


KEY = "sk-Ab3_very+secret/0123456789="
BAD = {
    "a return in it": f"{KEY}\rx",
    "a line break in it": f"{KEY}\nx",
    "a space in it": f"{KEY} x",
    "bytes that are no text": f"{KEY}\udcff",
    "not ASCII": f"{KEY}\u20ac",
    "a non-breaking space in it": f"{KEY}\u00a0x",
    "an escape": f"{KEY}\x1b[0m",
    "a delete": f"{KEY}\x7f",
    "far too long": KEY + "x" * 100_000,
}
WRAPPED = {
    "a return after it": f"{KEY}\r",
    "a line break after it": f"{KEY}\r\n",
    "spaces around it": f"  {KEY}\t",
}
COMMANDS = {
    "run": ("run", "-y", "--remote", "lambda", "one", "sh", "true"),
    "dry": ("run", "--dry-run", "--remote", "lambda", "one", "sh", "true"),
    "json": ("run", "--dry-run", "--json", "--remote", "lambda", "one", "sh", "true"),
    "local": ("run", "--local", "one", "sh", "env; tr '\\0' '\\n' </proc/$PPID/environ"),
    "offers": ("offers",),
    "reap": ("reap", "-y"),
    "doctor": ("doctor",),
    "ps": ("ps",),
}
"""What may have to do with the key; a local job prints all that it was given."""


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("value", [*BAD.values(), *WRAPPED.values()], ids=[*BAD, *WRAPPED])
def test_no_command_ever_shows_or_keeps_the_key(
    value: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    with LambdaCloud(Settings(request_interval=0, launch_interval=0)) as cloud:
        cloud.inject(FAULTS["launch-quota"])
        given = value.replace(KEY, cloud.key)
        env = {**cloud.env, "LAMBDA_API_KEY": given, "LAMBDA_API_RPS": "0", "LAMBDA_SETTLE": "0.1"}
        desk = Desk(folder=tmp_path, options=(), env=env)
        done = desk.cvl(*command)
        assert shown_by(done, desk, cloud.key) == []
        refused = value in BAD.values() and command[0] in {"offers", "run", "doctor", "reap"}
        if refused and "--local" not in command:
            assert "LAMBDA_API_KEY is no key" in done.err + done.out.decode()
            assert (done.code, cloud.alive()) == (2 if command[0] in {"run", "offers"} else 125, [])
        elif command[0] == "offers":
            assert (done.code, done.err) == (0, "")


def shown_by(done: Done, desk: Desk, secret: str = KEY) -> list[str]:
    """Return where a command has shown or left a secret, or a good part of it."""
    part = secret[:16].encode()
    said = {"stdout": done.out, "stderr": os.fsencode(done.err)}
    kept = {str(path): path.read_bytes() for path in desk.state.rglob("*") if path.is_file()}
    return [place for place, data in (said | kept).items() if part in data]


@pytest.mark.parametrize("value", [*BAD.values(), f"{KEY}\0x"], ids=[*BAD, "a NUL"])
def test_from_python_a_bad_key_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(UsageError, match="api_key is no key") as told:
        api(value)
    assert KEY not in repr(told.value) + told.value.hint


def test_a_key_that_is_no_text_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageError, match="api_key is no text but bytes") as told:
        api(KEY.encode())  # type: ignore[arg-type]
    assert KEY not in repr(told.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1))
def test_a_key_is_visible_ascii_or_refused(value: str) -> None:
    word = value.strip()
    if all("!" <= character <= "~" for character in word):
        assert checked(value, "A_KEY") == word
    else:
        with pytest.raises(UsageError, match="A_KEY is no key"):
            checked(value, "A_KEY")


REFUSED = [
    "http://192.0.2.1/api/v1",
    "http://cloud.lambda.ai/api/v1",
    "HTTP://CLOUD.LAMBDA.AI/api/v1",
    "http://127.0.0.1.evil.example/api/v1",
    "http://localhost.evil.example/api",
    "http://localhost@evil.example/api",
    "http://127.0.0.1:80@evil.example/api",
    "https://user:password@cloud.lambda.ai/api",
    "http://evil.example#@127.0.0.1/",
    "http://evil.example?@127.0.0.1/",
    "http://evil.example\\@127.0.0.1/",
    "http://127.0.0.1\\.evil.example/",
    "http://[::2]/api",
    "http://[::ffff:192.0.2.1]/",
    "http://0.0.0.0:80/",
    "http://0/",
    "http://2130706433/",
    "http://127.1/",
    "http:///api/v1",
    "http:127.0.0.1/api",
    "//127.0.0.1/api",
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "127.0.0.1",
    "http://127.0.0.1/\nHost: evil",
    "http://127.0.0.1\t.evil.example/",
    "https://cloud.lambda.ai/api?x=",
    "",
    " https://cloud.lambda.ai",
]
TAKEN = [
    "https://cloud.lambda.ai/api/v1",
    "HTTPS://cloud.lambda.ai",
    "http://127.0.0.1:8080/api/v1",
    "http://127.8.9.10/",
    "http://LOCALHOST:80",
    "http://[::1]:8080/api",
]


@pytest.mark.parametrize("base", REFUSED)
def test_a_key_is_sent_encrypted_or_nowhere(base: str) -> None:
    with pytest.raises(UsageError, match="LAMBDA_API_BASE is") as told:
        LambdaAPI(KEY, base)
    assert "password" not in str(told.value)


@pytest.mark.parametrize("base", TAKEN)
def test_a_cloud_on_this_machine_needs_no_encryption(base: str) -> None:
    assert LambdaAPI(KEY, base).base == base.rstrip("/")


def test_an_address_that_is_not_encrypted_is_one_sentence(tmp_path: Path) -> None:
    env = {"LAMBDA_API_KEY": KEY, "LAMBDA_API_BASE": "http://192.0.2.1/api/v1"}
    done = Desk(folder=tmp_path, options=(), env=env).cvl("offers")
    assert (done.code, done.err.count("\n")) == (2, 2)
    assert "LAMBDA_API_BASE is not encrypted" in done.err


@pytest.mark.parametrize(
    "text",
    [
        f"Invalid header value b'Bearer {KEY}\\r'",
        f"Invalid header value b'AWS4-HMAC-SHA256 Credential=x, Signature={KEY}'",
        f"Failed to connect to proxy URL: http://me:{quote(KEY, safe='')}@192.0.2.1/",
        f"https://s3.example/a?X-Amz-Security-Token={KEY}&x=1",
    ],
)
def test_what_a_library_says_of_a_header_is_cut_out(text: str) -> None:
    part = KEY.partition("+")[0]
    assert part not in str(CvlError(text))
    assert part not in CvlError("x", hint=text).hint
    assert "<redacted>" in str(CvlError(text))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=8))
def test_a_known_secret_is_in_no_message(value: str) -> None:
    secrets.learn(value)
    for text in (f"a{value}b", f"a {value!r}", f"{value}{value}"):
        assert value not in secrets.clean(text) or len(value.strip()) < secrets.SHORTEST


ODD = [
    "secret_ab+c/d=ef12",
    "lam\"bda'quote\\x99",
    "pässwörd-1234",
    "tab\tkey-12345",
    "k%41 ey%20xyz",
]


@pytest.mark.parametrize("value", [*ODD, "\udc80\udcffbinary-key", "plain-key-123"])
def test_a_known_secret_is_cut_out_however_it_is_written(value: str) -> None:
    """An API quotes its request as JSON, an address escapes it, Kubernetes keeps base64."""
    secrets.learn(value)
    data = os.fsencode(value)
    for text in (
        *(value, repr(value), ascii(value), repr(repr(value)), repr(data), shlex.quote(value)),
        *(json.dumps(value), json.dumps(value, ensure_ascii=False), quote_plus(data), quote(data)),
        *(b64encode(data).decode(), b64encode(data + b"\n").decode()),
    ):
        shown = secrets.clean(f"refused: {text} is no key")
        rest = shown.removeprefix("refused: ").removesuffix(" is no key")
        assert len(rest.replace(secrets.REDACTED, "")) <= 6, (text, shown)


def test_no_part_of_a_secret_is_left_where_a_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    secrets.learn("cut-in-the-middle")
    for place in range(LONGEST - 20, LONGEST + 1):
        assert "cut-in" not in said(ValueError("x" * place + "cut-in-the-middle"))
    line = StatusLine()
    try:
        line.phase("waiting", "the server said cut-in-the-middle")
        assert "cut-in" not in line._words(200).plain
    finally:
        line.close()


def test_a_guardian_s_log_has_one_clean_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    secrets.learn("key-of-the-cloud")
    Log().phase("waiting", "for \x1b[2Jkey-of-the-cloud\nhere")
    assert capsys.readouterr().err.endswith(" waiting for \\x1b[2J<redacted>\\nhere\n")


def test_a_short_word_that_is_no_secret_stays_readable() -> None:
    secrets.learn_variables({"MODE": "training", "A_TOKEN": "training-0"})
    assert secrets.clean("training failed") == "training failed"
    assert secrets.clean("training-0 failed") == "<redacted> failed"


def test_whoever_sends_us_elsewhere_does_not_get_the_key() -> None:
    seen: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers["Host"]))
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{seen[-1].rpartition(':')[2]}/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_port}"
            with pytest.raises(Ambiguity, match="302"):
                LambdaAPI(KEY, base, interval=0, clock=FakeClock()).get("/regions")
        finally:
            server.shutdown()
            thread.join()
    assert {host.partition(":")[0] for host in seen} == {"127.0.0.1"}


def test_what_the_ledger_keeps_of_an_ending_holds_no_secret(tmp_path: Path) -> None:
    secrets.learn(KEY)
    book = Ledger(tmp_path / "ledger.db")
    book.begin(Run(id="r", owner="me"))
    assert book.advance("r", RunState.LAUNCHING)
    assert book.finish("r", ExitStatus(125, detail=f"the vendor says: {KEY} is wrong"))
    assert book.run("r").detail == "the vendor says: <redacted> is wrong"
    assert all(KEY.encode() not in file.read_bytes() for file in tmp_path.iterdir())


def test_a_guardian_is_given_no_key_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears the key; in the environment it may stand with white space around it."""
    monkeypatch.setenv("LAMBDA_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("ANOTHER_NAME", KEY)
    assert not [value for value in environment({"api_key": KEY}).values() if KEY in value]
