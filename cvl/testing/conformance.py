"""What every runner has to do, as checks that any runner can be put through.

Each check takes a `Desk` and raises `AssertionError`. A third-party runner joins with a fixture
that makes a desk and `@pytest.mark.parametrize("check", conformance.CHECKS)`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

from cvl.ledger import Ledger
from cvl.providers import reopen
from cvl.testing.cli_harness import Desk

Check = Callable[[Desk], None]
CODES = (0, 1, 2, 124, 125, 130, 255)
BYTES = bytes(range(256))
FOREVER = "sleep 1000"
DEAF = "trap '' INT TERM HUP; "
SECRET = "s3cret-that-nobody-may-see"


def exit_codes(desk: Desk) -> None:
    """The script's own exit code is ours."""
    for code in CODES:
        assert desk.sh(f"exit {code}").code == code
    assert desk.sh("kill -9 $$").code == 128 + signal.SIGKILL


def arguments(desk: Desk) -> None:
    """Everything after PRESET arrives byte for byte; one leading `--` is dropped."""
    words = [
        "-x",
        "--",
        "",
        "a b",
        "'",
        '"',
        "$(id)",
        ";",
        "\n",
        "\\",
        "é\u2028",
        "--help",
        "--ssh=x",
    ]
    for given, there in (
        (words, words),
        (["--", "--", "-d"], ["--", "-d"]),
        (["--"], []),
        ([], []),
    ):
        done = desk.cvl("run", *desk.options, "one", "args", *given)
        assert done.code == 0, done.err
        assert done.out == b"".join(os.fsencode(word) + b"\0" for word in there)


def output_bytes(desk: Desk) -> None:
    """Output is bytes: any of them, in lines of any length, and nothing else on stdout."""
    line = "head -c 1000000 /dev/zero | tr '\\0' x"
    octal = "".join(f"\\{byte:03o}" for byte in BYTES)
    done = desk.sh(f"printf '{octal}'; {line}; printf '10%%\\r20%%\\r'; echo err >&2")
    assert done.out == BYTES + b"x" * 1_000_000 + b"10%\r20%\rerr\n"
    assert desk.cvl("logs", desk.runs()[0]).out == done.out


def live_output(desk: Desk) -> None:
    """Output is shown as it is produced, also half a line."""
    with desk.running("printf half; sleep 1000") as client:
        assert client.shows(b"half") == b"half"
        assert client.process.poll() is None
        client.signal(signal.SIGTERM)
        client.ended()


def forwarded_variables(desk: Desk) -> None:
    """`-e` and `--env-file` reach the script; secrets are nowhere else, while it runs neither."""
    secret = f"{SECRET}-{token_hex(8)}"  # others may look for theirs at the same time
    file = desk.folder / "env"
    file.write_text(f"# a comment\nexport FROM_FILE={secret}-2\nEMPTY=\n")
    script = 'printf "%s" "$TOKEN|$FROM_FILE|${EMPTY-unset}" >seen; echo ready; sleep 1000'
    options = ("run", *desk.options, "-e", "TOKEN", "--env-file", str(file), "one", "sh", script)
    with desk.start(*options, env={"TOKEN": secret}) as client:
        client.shows(b"ready")
        assert secret not in _command_lines()
        assert not _given(f"{secret}-2")
        assert not _mentions(desk.state, secret)
        client.signal(signal.SIGINT)
        assert client.ended().code == 130
    assert desk.result("seen") == f"{secret}|{secret}-2|".encode()
    assert not _mentions(desk.state, secret)
    assert secret not in json.dumps(desk.ps())


def results_on_success(desk: Desk) -> None:
    """What the script makes in its folder and in CVL_WORK_DIR comes back, nothing else does."""
    done = desk.sh('mkdir -p out; echo a >out/a; echo b >"$CVL_WORK_DIR/b"; : >out/empty')
    assert done.code == 0
    assert (desk.result("a"), desk.result("b"), desk.result("empty")) == (b"a\n", b"b\n", b"")
    landed = {path.name for path in (desk.repo / "cvl-runs").rglob("*") if path.is_file()}
    assert landed == {"a", "b", "empty"}


def results_on_failure(desk: Desk) -> None:
    """Results come back after a failure too, to the folder that `-o` names."""
    assert desk.sh("echo a >result; exit 3", "-o", "there").code == 3
    assert [path.read_text() for path in (desk.repo / "there").rglob("result")] == ["a\n"]


def timeout_is_ours(desk: Desk) -> None:
    """A timeout ends all that was started, fetches, and exits 124 with that as its cause."""
    script = f"echo a >result; ({DEAF}setsid sh -c '{DEAF.replace(chr(39), '')}{FOREVER}' &) ; "
    done = desk.sh(script + DEAF + FOREVER, "--timeout", "1s", "--grace", "0.2s", "--json")
    assert (done.code, json.loads(done.err.splitlines()[-1])["cause"]) == (124, "timeout")
    assert desk.result("result") == b"a\n"
    assert not desk.left(desk.runs()[0])


def own_124(desk: Desk) -> None:
    """A script that exits 124 has not timed out."""
    done = desk.sh("exit 124", "--timeout", "1h", "--json")
    assert (done.code, json.loads(done.err.splitlines()[-1])["cause"]) == (124, "exited")


def ctrl_c(desk: Desk) -> None:
    """Ctrl-C stops the job over there, with its children, brings results, exits 130."""
    with desk.running(f"echo a >result; setsid {FOREVER} & echo ready; {FOREVER}") as client:
        client.shows(b"ready")
        client.signal(signal.SIGINT)
        assert client.ended().code == 130
    assert desk.result("result") == b"a\n"
    assert not desk.left(desk.runs()[0])


def ctrl_c_three_times(desk: Desk) -> None:
    """The second says what is being done; the third leaves, and says how to go on."""
    with desk.running(f"{DEAF}echo ready; while :; do sleep 1; done") as client:
        client.shows(b"ready")
        client.signal(signal.SIGINT)
        client.says("stopping")
        client.signal(signal.SIGINT)
        client.says("once more")
        client.signal(signal.SIGINT)
        done = client.ended()
        assert done.code == 130
        assert f"cvl attach {desk.runs()[0]}" in done.err


def terminated(desk: Desk) -> None:
    """SIGTERM does as Ctrl-C does, and exits 143."""
    with desk.running(f"echo a >result; echo ready; {FOREVER}") as client:
        client.shows(b"ready")
        client.signal(signal.SIGTERM)
        assert client.ended().code == 143
    assert desk.result("result") == b"a\n"
    assert not desk.left(desk.runs()[0])


def hang_up(desk: Desk) -> None:
    """SIGHUP leaves the job alone, says how to get it back, exits 129."""
    with desk.running(
        "echo ready; until [ -e go ] || [ -e $CVL_WORK_DIR/x ]; do sleep .1; done; exit 3"
    ) as client:
        client.shows(b"ready")
        client.signal(signal.SIGHUP)
        done = client.ended()
        assert done.code == 129
        assert f"cvl attach {desk.runs()[0]}" in done.err
        assert desk.left(desk.runs()[0])


def stop_elsewhere(desk: Desk) -> None:
    """`cvl stop` from another process ends the job; whoever follows it sees 143."""
    with desk.running(f"echo a >result; echo ready; {FOREVER}") as client:
        client.shows(b"ready")
        run = desk.runs()[0]
        assert desk.cvl("stop", run).code == 0
        assert client.ended().code == 143
    assert desk.ps()[0]["cause"] == "stopped"
    assert desk.result("result") == b"a\n"
    assert not desk.left(run)


def detached(desk: Desk) -> None:
    """`-d` prints the bare id; `attach` shows all, brings results, gives the exit code."""
    done = desk.sh("echo one; sleep 1; echo two; echo a >result; exit 3", "-d")
    run = done.out.decode().strip()
    assert (done.code, run) == (0, desk.runs()[0])
    end = desk.cvl("attach", run)
    assert (end.code, end.out) == (3, b"one\ntwo\n")
    assert desk.result("result") == b"a\n"
    assert desk.cvl("logs", run).out == b"one\ntwo\n"
    assert desk.ps()[0]["state"] == "ended"


def killed_client(desk: Desk) -> None:
    """After kill -9 of the client nothing is lost: `attach` shows the rest, then the code."""
    script = (
        "for i in $(seq 2000); do echo line $i; [ $((i % 100)) != 0 ] || sleep .1; done; exit 4"
    )
    with desk.running(script) as client:
        client.shows(b"line 300\n")
        client.signal(signal.SIGKILL)
        client.ended()
        end = desk.cvl("attach", desk.runs()[0])
    assert end.code == 4
    whole = b"".join(b"line %d\n" % i for i in range(1, 2001))
    assert client.out == whole[: len(client.out)]
    assert end.out == whole[len(whole) - len(end.out) :]
    assert len(client.out) + len(end.out) >= len(whole)
    assert desk.cvl("logs", desk.runs()[0]).out == whole


def killed_attach(desk: Desk) -> None:
    """After kill -9 of an attach the job goes on, and who attaches again gets its exit code.

    A guardian is there only where something is rented that its provider does not end by itself.
    """
    done = desk.sh("for i in $(seq 40); do echo tick; sleep .2; done; exit 5", "-d")
    assert done.code == 0, done.err
    run = desk.runs()[0]
    with desk.start("attach", run) as client:
        client.shows(b"tick\n")
        ledger = Ledger(desk.state / "ledger.db")
        noted = ledger.run(run)
        guarded = reopen(noted.runner, noted.handle).guarded and ledger.leases(run, open_only=True)
        assert bool(noted.guardian) == bool(guarded)
        client.signal(signal.SIGKILL)
        assert client.ended().code == -signal.SIGKILL
    end = desk.cvl("attach", run)
    assert (end.code, desk.ps()[0]["cause"]) == (5, "exited"), end.err


def own_limits(desk: Desk) -> None:
    """The script has no stdin, knows its run and its own folder, and Python does not buffer."""
    done = desk.sh('cat; test -d "$CVL_WORK_DIR" && echo "$CVL_RUN_ID $PYTHONUNBUFFERED"')
    assert done.out.decode() == f"{desk.runs()[0]} 1\n"


def dry_run(desk: Desk) -> None:
    """`--dry-run --json` says exactly what would be done, shows no secret, does nothing."""
    done = desk.sh("exit 1", "--dry-run", "--json", "-e", f"TOKEN={SECRET}")
    plan = json.loads(done.out)
    assert set(plan) == {"runner", "request", "quote", "layers"}
    assert set(plan["quote"]) == {"price_per_hour", "max_hours", "max_cost", "currency", "note"}
    assert SECRET not in done.out.decode()
    assert "<redacted:TOKEN>" in done.out.decode()
    assert (done.code, desk.ps()) == (0, [])


CHECKS: tuple[Check, ...] = (
    exit_codes,
    arguments,
    output_bytes,
    live_output,
    forwarded_variables,
    results_on_success,
    results_on_failure,
    timeout_is_ours,
    own_124,
    ctrl_c,
    ctrl_c_three_times,
    terminated,
    hang_up,
    stop_elsewhere,
    detached,
    killed_client,
    killed_attach,
    own_limits,
    dry_run,
)


def _command_lines() -> str:
    """Return the command lines of all processes here that are not our own words."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found.append(Path(entry.path, "cmdline").read_text(errors="replace"))
            except OSError:
                continue
    return "\n".join(found)


def _given(words: str) -> list[str]:
    """Return the processes that have these words in their environment and are no run's."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                given = Path(entry.path, "environ").read_bytes()
                if words.encode() in given and b"CVL_RUN_ID=" not in given:
                    found.append(Path(entry.path, "cmdline").read_text(errors="replace"))
            except OSError:
                continue
    return found


def _mentions(folder: Path, words: str) -> list[Path]:
    """Return the files below `folder` that hold `words`."""
    mark = words.encode()
    return [file for file in folder.rglob("*") if file.is_file() and mark in file.read_bytes()]
