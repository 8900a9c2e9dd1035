"""Bad input: one clear sentence and a hint, the right exit code, and nothing is started."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cvl.testing.cli_harness import Desk, Done
from cvl.testing.sshd import Sshd

LOCAL = ("--local",)
SSH = ("--ssh", "testhost")


@pytest.fixture
def desk(host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=LOCAL, env=host.env)


def refused(done: Done, code: int, *words: str) -> None:
    """See one sentence and at most one hint, with these words, and this exit code."""
    lines = done.err.splitlines()
    said = [line for line in lines if line.startswith("cvl: ")]
    hints = [line for line in lines if line.startswith("hint: ")]
    assert (done.code, done.out, len(said)) == (code, b"", 1), done
    assert len(hints) <= 1, done
    assert lines == said + hints, done
    for word in words:
        assert word in done.err, done


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("run --local nope sh", 2, ["no example", "'nope'"]),
        ("run --local one shh", 2, ["preset 'shh'", "sh"]),
        ("run --local one gone", 2, ["gone.sh"]),
        ("run --timeout -5m one sh", 2, ["-5m", "more than 0"]),
        ("run --timeout 5 one sh", 2, ["no unit", "5m"]),
        ("run --timeout 9999d one sh", 2, ["longer than a year"]),
        ("run --timeout-minutes -1 one sh", 2, ["more than 0"]),
        ("run --timeout-minutes nan one sh", 2, ["nan"]),
        ("run --timeout-minutes x one sh", 2, ["--timeout-minutes", "x"]),
        ("run --grace -1s one sh", 2, ["-1s"]),
        ("run --max-cost x one sh", 2, ["--max-cost"]),
        ("run -e NOT_SET_HERE one sh", 2, ["NOT_SET_HERE", "NOT_SET_HERE=VALUE"]),
        ("run -e 1BAD=x one sh", 2, ["a name has letters"]),
        ("run -e CVL_RUN_ID=x one sh", 2, ["CVL_RUN_ID", "cvl itself"]),
        ("run -e CVL_WORK_DIR=/x one sh", 2, ["CVL_WORK_DIR", "cvl itself"]),
        ("run --env-file nowhere one sh", 2, ["nowhere"]),
        ("run --gpu-type h100 one sh", 2, ["--gpu-type goes with --remote lambda"]),
        ("run --ssh testhost --remote-workdir /x one sh", 2, ["--remote-workdir", "--docker HOST"]),
        ("run --setup-cvl one sh", 2, ["--setup-cvl", "--ssh HOST"]),
        ("run --frobnicate one sh", 2, ["--frobnicate", "cvl run --help"]),
        ("run --nodes 2 one sh", 2, ["one node"]),
        ("run --nodes 2 --ssh testhost one sh", 2, ["one node"]),
        ("run --nodes 0 one sh", 2, ["--nodes"]),
        ("run --runner nope one sh", 2, ["'nope'", "local, ssh"]),
        ("run --remote nope one sh", 2, ["'nope'", "local, ssh"]),
        ("run --ssh= one sh", 2, ["not a host"]),
        ("run --docker= one sh", 2, ["not a host"]),
        ("run --runner= one sh", 2, ["''", "local, ssh"]),
        ("run --remote= one sh", 2, ["''", "local, ssh"]),
        ("run --remote lambda --gpu-type= one sh", 2, ["--gpu-type is empty", "leave it out"]),
        ("run --remote lambda --region= one sh", 2, ["--region is empty"]),
        ("run --remote lambda --wait-capacity= one sh", 2, ["--wait-capacity is empty"]),
        ("run --k8s --image= one sh", 2, ["--image is empty"]),
        ("reap --remote=", 2, ["--remote is empty"]),
        ("run --timeout 0 one sh", 2, ["more than 0"]),
        ("reap --dry-run --host=", 2, ["not a host"]),
        ("reap -y --host=", 2, ["not a host"]),
        ("run --output-dir= one sh", 2, ["'--output-dir'", "empty"]),
        ("run --root= one sh", 2, ["'--root'", "empty"]),
        ("list --root=", 2, ["'--root'", "empty"]),
        ("run -o examples/conformance/one/sh.sh one sh", 2, ["sh.sh is no folder", "-o DIR"]),
        ("run -o examples/conformance/one/sh.sh/x one sh", 2, ["sh.sh is no folder", "-o DIR"]),
        ("run --local --ssh testhost one sh", 2, ["local and ssh", "one of them"]),
        ("run --ssh -oProxyCommand=x one sh", 2, ["not a host"]),
        ("run --docker -x one sh", 2, ["not a host"]),
        ("run --docker testhost --remote-workdir x one sh", 2, ["absolute"]),
        ("run --ssh testhost --include ../x one sh", 2, ["../x"]),
        ("run --root /nowhere one sh", 2, ["/nowhere"]),
        ("run", 2, ["EXAMPLE"]),
        ("run one", 2, ["PRESET"]),
        ("rnu one sh", 2, ["cvl run"]),
        ("logs nope", 2, ["'nope'"]),
        ("attach nope", 2, ["'nope'"]),
        ("fetch nope", 2, ["'nope'"]),
        ("stop nope", 2, ["'nope'"]),
        ("logs", 2, ["RUN"]),
        ("stop", 2, ["RUN"]),
        ("info nope", 2, ["'nope'"]),
        ("run --ssh nowhere.invalid one sh", 125, ["no such host", "spelling"]),
        ("run --docker nowhere.invalid one sh", 125, ["no such host", "spelling"]),
    ],
)
def test_what_cannot_be_meant(desk: Desk, words: str, code: int, says: list[str]) -> None:
    refused(desk.cvl(*words.split()), code, *says)
    assert all(run["cause"] == "not-started" for run in desk.ps())


def test_secrets_are_in_no_error(desk: Desk) -> None:
    done = desk.cvl("run", "-e", "BAD-NAME=s3cret", "one", "sh")
    refused(done, 2)
    assert "s3cret" not in done.err
    (desk.repo / "env").write_text("also bad=s3cret\n")
    done = desk.cvl("run", "--env-file", "env", "one", "sh")
    refused(done, 2, "env:1")
    assert "s3cret" not in done.err


def test_a_prefix_that_fits_two_runs_is_refused(desk: Desk) -> None:
    desk.sh("exit 0")
    desk.sh("exit 0")
    one, two = desk.runs()
    for command in ("logs", "attach", "fetch", "stop"):
        refused(desk.cvl(command, "one"), 2, "more than one", one, two)


def test_a_port_where_nobody_listens(desk: Desk) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        to = f"127.0.0.1:{probe.getsockname()[1]}"
        refused(desk.cvl("run", "--ssh", to, "one", "sh"), 125, "refused the connection", "sshd")


def test_an_unknown_host_key_is_accepted_only_if_asked(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host") as sshd:
        desk = Desk(folder=tmp_path / "desk", options=SSH, env=sshd.env)
        sshd.known_hosts.write_text("")
        refused(desk.sh("exit 0"), 125, "host key of testhost is not known", "fingerprint")
        assert not list(sshd.home.rglob("*"))
        assert desk.sh("exit 3", "--accept-new-host-key").code == 3
        assert desk.sh("exit 4").code == 4


def test_a_changed_host_key_is_never_accepted(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host") as sshd:
        desk = Desk(folder=tmp_path / "desk", options=SSH, env=sshd.env)
        key = subprocess.check_output(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"]
        )
        assert key == b""
        other = (tmp_path / "other.pub").read_text()
        sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {other}")
        for options in ((), ("--accept-new-host-key",)):
            done = desk.sh("exit 0", *options)
            refused(done, 125, "host key of testhost has changed", "ssh-keygen")
        assert not list(sshd.home.rglob("*"))


def test_the_wrong_key(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host") as sshd:
        desk = Desk(folder=tmp_path / "desk", options=SSH, env=sshd.env)
        (tmp_path / "host/authorized_keys").write_text("")
        refused(desk.sh("exit 0"), 125, "Authentication failed", "ssh-copy-id")


def test_a_key_that_others_can_read(desk: Desk, host: Sshd) -> None:
    key = desk.repo / "key"
    key.write_bytes(host.key.read_bytes())
    key.chmod(0o644)
    code = (
        "from cvl.runners import SSHRunner as S; S(ssh_key_path='key').run('testhost','one','sh')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=desk.environment,
        cwd=desk.repo,
        capture_output=True,
        check=False,
    )
    assert b"others can read the SSH key" in done.stderr


def test_missing_programs_are_named_before_anything_starts(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "git"):
        where = subprocess.check_output(["which", tool], text=True).strip()
        (tmp_path / "bin" / tool).symlink_to(where)
    here = {"PATH": str(tmp_path / "bin")}
    done = desk.cvl("run", *SSH, "one", "sh", "exit 0", env=here)
    refused(done, 125, "ssh", "openssh-client")
    assert desk.ps() == []


def test_a_state_folder_that_cannot_be_written(desk: Desk) -> None:
    done = desk.cvl("run", "one", "sh", "exit 0", env={"CVL_STATE_DIR": "/proc/nowhere"})
    refused(done, 125, "/proc/nowhere")


def test_an_unreadable_ledger_is_kept_aside_and_said(desk: Desk) -> None:
    desk.sh("exit 0")
    ledger = desk.state / "ledger.db"
    ledger.write_bytes(b"what is this" * 1000)
    refused(desk.cvl("ps"), 125, "ledger")
    assert ledger.read_bytes() == b"what is this" * 1000
    refused(desk.sh("exit 0"), 125, "kept", "again")
    assert [file.read_bytes() for file in desk.state.glob("*corrupt*")] == [b"what is this" * 1000]
    assert desk.sh("exit 3").code == 3


def test_results_that_cannot_land_here_stay_there(desk: Desk) -> None:
    done = desk.sh(f"echo a >result; echo >{shlex.quote(str(desk.repo))}/file", "-o", "file/x")
    assert done.code == 125
    assert "file" in done.err
    assert f"cvl fetch {desk.runs()[0]}" in done.err
    assert desk.cvl("fetch", desk.runs()[0], "-o", "there").code == 0
    assert [path.read_text() for path in (desk.repo / "there").rglob("result")] == ["a\n"]
