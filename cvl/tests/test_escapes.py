"""Whatever a repository, a host, a provider or a ledger says, no line of ours acts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cvl.cli import main
from cvl.testing.cli_harness import FOLDER, Desk, Done
from cvl.testing.sshd import Sshd

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u2066\u200b\ufeff\x7f\b\r"
FORGED = "\ncvl: forged\nhint: forged\u2028cvl: forged\x85cvl: forged"
HOSTILE = f"bad{ESCAPES}{FORGED}[red]x"
ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BROKEN = "name: [\x1b]0;title\x07\u202e\n"


def example() -> str:
    """Return an example whose every field means no good; YAML is written as JSON is."""
    one = {"script": "sh.sh", "description": HOSTILE}
    fields = {
        "name": HOSTILE,
        "capability": HOSTILE,
        "stability": HOSTILE,
        "description": HOSTILE,
        "docker": False,
        "tags": [HOSTILE],
        "resources": {HOSTILE: HOSTILE},
        "presets": {"sh": one, HOSTILE: one},
    }
    return json.dumps(fields)


@pytest.fixture
def desk(host: Sshd, tmp_path: Path) -> Desk:
    desk = Desk(folder=tmp_path, options=("--local",), env=host.env)
    for name in ("bad", HOSTILE, os.fsdecode(b"\xff\x1b")):
        folder = desk.repo / "examples/conformance" / name
        folder.mkdir()
        (folder / "example.yaml").write_text(example())
        (folder / "README.md").write_text(HOSTILE)
        (folder / "sh.sh").write_text('#!/bin/sh\neval "$1"\n')
        (folder / "sh.sh").chmod(0o755)
    broken = desk.repo / "examples/broken\x1b[2J"
    broken.mkdir()
    (broken / "example.yaml").write_text(BROKEN)
    return desk


def calm(done: Done, out: bytes | None = None) -> Done:
    """See that nothing acts in what was written, and that no line of ours is forged."""
    for text in (done.out.decode() if out is None else out.decode(), done.err):
        assert not acting(text), acting(text)
        assert not [
            line for line in text.splitlines() if line.startswith(("cvl: forged", "hint: forged"))
        ]
    assert "defect in cvl" not in done.err, done.err
    return done


def acting(text: str) -> set[str]:
    return {each for each in text if unicodedata.category(each) in ACTING} - {"\n"}


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "--json"],
        ["list", "-k", HOSTILE],
        ["list", "-k", "nowhere" + HOSTILE],
        ["list", "--root", HOSTILE],
        ["info", "bad"],
        ["info", "bad", "--json"],
        ["info", "nope" + HOSTILE],
        ["run", "bad", HOSTILE * 2],
        ["run", HOSTILE, HOSTILE],
        ["run", "--dry-run", "bad", "sh", HOSTILE],
        ["run", "--dry-run", "--json", "bad", "sh", HOSTILE],
        ["run", "--dry-run", "--ssh", "testhost", "bad", "sh", HOSTILE],
        ["run", "--dry-run", "--k8s", "bad", HOSTILE],
        ["run", "-o", FOLDER + "/sh.sh/" + HOSTILE, "one", "sh"],
        ["run", "-e", HOSTILE, "one", "sh"],
        ["run", "--env-file", HOSTILE, "one", "sh"],
        ["run", "--timeout", HOSTILE, "one", "sh"],
        ["run", "--runner", HOSTILE, "one", "sh"],
        ["run", "--ssh", HOSTILE, "one", "sh"],
        ["run", "--ssh", "testhost", "--include", HOSTILE, "one", "sh"],
        ["run", f"--{HOSTILE}", "one", "sh"],
        [HOSTILE],
        ["logs", HOSTILE],
        ["attach", HOSTILE],
        ["fetch", HOSTILE],
        ["stop", HOSTILE, HOSTILE],
        ["doctor", "--host", HOSTILE],
        ["doctor", "--host", "nowhere.invalid"],
        ["reap", "--host", HOSTILE],
    ],
    ids=lambda words: " ".join(words).encode("unicode_escape").decode()[:40],
)
def test_what_is_called_or_found_here(words: list[str], desk: Desk) -> None:
    calm(desk.cvl(*words, env={"KUBECONFIG": HOSTILE}))


def test_variables_and_configuration_of_ours(desk: Desk) -> None:
    for name in ("CVL_RUNNER", "CVL_ROOT", "CVL_TIMEOUT"):
        calm(desk.cvl("run", "--dry-run", "one", "sh", env={name: HOSTILE}))
    (desk.repo / "cvl.toml").write_text(f"{json.dumps(HOSTILE)} = 1\n")
    calm(desk.cvl("run", "--dry-run", "one", "sh"))
    (desk.repo / "cvl.toml").write_bytes(b"\x1b[2J = [\n\xff")
    calm(desk.cvl("run", "--dry-run", "one", "sh"))


def test_a_run_and_all_that_is_asked_of_it_later(desk: Desk) -> None:
    """The job's own output is passed on as it is, which is what it is for."""
    name = "$(printf 'r\\033[2J\\ncvl: forged')"
    script = f'printf \'raw\\033[1m\'; mkfifo "{name}"; ln -s / "{name}2"; exit 3'
    done = desk.cvl("run", "--local", "bad", "sh", script)
    assert (done.code, done.out) == (3, b"raw\x1b[1m")
    calm(done, b"")
    (run,) = desk.runs()
    db = sqlite3.connect(desk.state / "ledger.db")
    with db:
        fields = 'example = ?, preset = ?, "where" = ?, detail = ?'
        db.execute(f"UPDATE runs SET {fields}", ["x/" + HOSTILE, HOSTILE, HOSTILE, HOSTILE])
    db.close()
    table = calm(desk.cvl("ps", "-a")).out.decode()
    assert len(table.splitlines()) == 2
    calm(desk.cvl("ps", "--json"))
    assert json.loads(desk.cvl("ps", "--json").out)[0]["preset"] == HOSTILE
    assert desk.cvl("logs", run).out == b"raw\x1b[1m"
    for words in (["attach", run], ["stop", run], ["fetch", run], ["reap", "--dry-run"]):
        calm(desk.cvl(*words))


@pytest.mark.parametrize("shown", ["error", "table"])
def test_a_provider(shown: str, desk: Desk) -> None:
    types = {
        "data": {
            "t": {
                "instance_type": instance_type(),
                "regions_with_capacity_available": [{"name": HOSTILE, "description": HOSTILE}],
            }
        }
    }
    error = {"error": {"code": HOSTILE, "message": HOSTILE * 1000, "suggestion": HOSTILE}}
    with provider(types if shown == "table" else error, 200 if shown == "table" else 400) as base:
        env = {"LAMBDA_API_BASE": base, "LAMBDA_API_KEY": "k" * 20, "LAMBDA_API_RPS": "0"}
        for words in (
            ["offers", "-a"],
            ["offers", "--json"],
            ["reap", "--dry-run"],
            ["run", "--remote", "lambda", "--dry-run", "one", "sh", "true"],
        ):
            done = calm(desk.cvl(*words, env=env))
            assert len(done.err) < 30_000
            if shown == "table" and words[0] == "offers":
                assert b"H100" in done.out


def instance_type() -> dict[str, object]:
    return {
        "name": "t" + HOSTILE,
        "description": HOSTILE,
        "gpu_description": "H100" + HOSTILE,
        "price_cents_per_hour": 100,
        "specs": {"vcpus": 1, "memory_gib": 1, "storage_gib": 1, "gpus": 1},
    }


def provider(answer: object, status: int) -> _Provider:
    return _Provider(json.dumps(answer).encode(), status)


class _Provider:
    """Answers every request alike."""

    def __init__(self, body: bytes, status: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[Sshd]:
    """A host whose tools and whose login shell say such things of themselves."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("docker", "nvidia-smi", "find"):
        (tools / name).write_text(f"#!/bin/sh\nprintf '%s\\n' {quoted(HOSTILE)}\nexit 1\n")
        (tools / name).chmod(0o755)
    with Sshd(tmp_path / "host", path=f"{tools}:{SYSTEM_PATH}", noise=HOSTILE) as sshd:
        yield sshd


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_a_host(strange: Sshd, tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path / "desk", options=("--docker", "testhost"), env=strange.env)
    calm(desk.cvl("doctor", "--host", "testhost"))
    calm(desk.cvl("doctor", "--host", "testhost", "--json"))
    calm(desk.sh("exit 0"), b"")
    calm(desk.cvl("ps", "-a"))
    left = strange.home / ".cvl/runs" / HOSTILE
    left.mkdir(parents=True)
    calm(desk.cvl("reap", "--host", "testhost", "--days", "0"))


def test_a_defect_that_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_complain: object) -> None:
        raise ValueError(HOSTILE)

    monkeypatch.setenv("CVL_DEBUG", "1")
    monkeypatch.setattr("cvl.operations.orphan_notice.notify", broken)
    with contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(["ps"]) == 125
    assert "Traceback" in err.getvalue()
    assert "ValueError: bad" in err.getvalue()
    assert not acting(err.getvalue())


def test_a_plain_locale_is_no_reason_to_fail(desk: Desk) -> None:
    """Nor are names that are no UTF-8; what cannot be shown there is shown as an escape."""
    for env in ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "iso-8859-1"}):
        plain = {"PYTHONUTF8": "0", **env}
        for words in (["list"], ["info", "bad"], ["ps"], ["--help"], ["run", "--help"]):
            done = desk.cvl(*words, env=plain)
            assert done.code == 0, done.err
            assert not acting(done.out.decode("iso-8859-1"))
    assert b"\\xff\\x1b" in desk.cvl("list").out


def test_a_long_message_is_short(desk: Desk) -> None:
    refused = desk.cvl("run", "one", "x" * 100_000)
    assert refused.code == 2
    assert len(refused.err) < 10_000
