"""One provider's broken login stops nobody: what is late elsewhere ends, and soon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvl.cli.console import Console
from cvl.core.errors import AuthError, NotFound
from cvl.core.parallel import as_they_come
from cvl.core.paths import ledger_file, state_dir
from cvl.core.process import me
from cvl.core.spec import Cause, Resource, ended, new_run_id
from cvl.ledger import Ledger, Run, RunState
from cvl.operations import reap_findings, reap_survey
from cvl.operations.reap_targets import Target, targets
from cvl.testing.cli_harness import wait_for
from cvl.testing.lambda_cloud import LambdaCloud as FakeCloud
from cvl.testing.lambda_cloud import Settings
from cvl.tests.test_broken_aws import PAIR, marked
from cvl.tests.test_reap import elsewhere, rented, settled
from cvl.tests.test_reap_timer import CRONTAB, install, program, user

SOON = 20.0
"""Seconds in which a machine has to be gone, whoever hangs: far less than any limit."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any login."""
    for name in [*os.environ]:
        if name.startswith("AWS_") or name in {"KUBECONFIG", "KUBERNETES_SERVICE_HOST"}:
            monkeypatch.delenv(name)
    made = tmp_path / "home"
    (made / ".aws").mkdir(parents=True)
    (made / ".kube").mkdir()
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CVL_TEST_MARK", str(tmp_path))
    return made


@pytest.fixture
def fake(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    with FakeCloud(Settings(request_interval=0, launch_interval=0, boot_seconds=0)) as cloud:
        settled(monkeypatch, tmp_path, cloud)
        yield cloud
        for pid in marked(tmp_path):
            if b"cvl.operations.guardian_main" in Path("/proc", pid, "cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)  # a guardian tries on for ever, as it should
        wait_for(lambda: not marked(tmp_path), 10)  # no program of a login outlives us


def script(file: Path, text: str) -> Path:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def profile(home: Path, text: str) -> None:
    (home / ".aws/config").write_text(f"[default]\nregion = us-east-1\n{text}")


def kubeconfig(home: Path, server: str = "https://127.0.0.1:1", **user: object) -> None:
    whole = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
    }
    (home / ".kube/config").write_text(json.dumps(whole))


def plugin(command: Path) -> Mapping[str, object]:
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": str(command)}


def fails(home: Path) -> None:
    profile(home, f"credential_process = {script(home / 'fails', 'echo oops >&2; exit 1')}\n")


def loops(home: Path) -> None:
    profile(home, "role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = default\n")


def half(home: Path) -> None:
    profile(home, "aws_access_key_id = AKIAX\n")


def no_json(home: Path) -> None:
    profile(home, f"credential_process = {script(home / 'hello', 'echo hello')}\n")


def no_profile(home: Path) -> None:
    (home / ".aws/config").write_bytes(bytes(range(256)))


def nulls(home: Path) -> None:
    (home / ".kube/config").write_text("contexts: [null]\nclusters: {a: b}\nusers: 5\n")


def no_date(home: Path) -> None:
    status = '{"status": {"token": "t", "expirationTimestamp": "soon"}}'
    answer = script(home / "plugin", f"echo '{status}'")
    kubeconfig(home, exec=plugin(answer))


def nobody(home: Path) -> None:
    kubeconfig(home, token="t")


def everything(home: Path) -> None:
    fails(home)
    nulls(home)


BROKEN: Mapping[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (fails, loops, half, no_json, no_profile, nulls, no_date, nobody, everything)
}


def hanging_program(home: Path) -> None:
    profile(home, f"credential_process = {script(home / 'hangs', 'sleep 1000; true')}\n")


def hanging_plugin(home: Path) -> None:
    kubeconfig(home, exec=plugin(script(home / "hangs", "sleep 1000; true")))


def hanging_both(home: Path) -> None:
    hanging_program(home)
    hanging_plugin(home)


HANGING = {each.__name__: each for each in (hanging_program, hanging_plugin, hanging_both)}


def command(
    *words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "cvl", *words]
    return subprocess.run(
        argv,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )


@contextmanager
def reaping_now() -> Iterator[subprocess.Popen[bytes]]:
    """Run `cvl reap -y`, and end it: whoever hangs is not waited for here."""
    argv = [sys.executable, "-m", "cvl", "reap", "-y"]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_login_keeps_no_machine(
    broken: Callable[[Path], None], fake: FakeCloud, home: Path, tmp_path: Path
) -> None:
    broken(home)
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    done = command("reap", "-y")
    assert fake.alive() == [], done.stderr
    assert "defect" not in done.stderr
    assert "note: " in done.stderr  # cvl was never used with it
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("hanging", HANGING.values(), ids=HANGING)
def test_a_login_that_hangs_is_waited_for_by_nobody(
    hanging: Callable[[Path], None], fake: FakeCloud, home: Path, tmp_path: Path
) -> None:
    hanging(home)
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    with reaping_now() as process:
        wait_for(lambda: not fake.alive(), SOON)
        assert process.poll() is None
    wait_for(lambda: not marked(tmp_path), 10)


def test_a_server_that_says_nothing_is_waited_for_by_nobody(
    fake: FakeCloud, home: Path, tmp_path: Path
) -> None:
    profile(home, PAIR)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kubeconfig(home, f"http://127.0.0.1:{silent.getsockname()[1]}", token="t")
        rented(elsewhere(tmp_path), tmp_path, left=-1)
        with reaping_now():
            wait_for(lambda: not fake.alive(), SOON)


def held(runner: str, name: str, *, over: bool = False, **handle: str) -> Run:
    """Note a run that holds a job at a provider, driven by this very process."""
    ledger = Ledger(ledger_file())
    run = ledger.begin(Run(id=new_run_id(name), runner=runner, owner=me(), handle=handle))
    ledger.advance(run.id, RunState.LAUNCHING)
    resource = Resource(kind="training-job", name=f"cvl-{run.id}", run_id=run.id)
    lease = ledger.intend(run.id, resource, provider=runner, by=me())
    assert lease is not None
    ledger.confirm(lease, "an-id")
    if over:
        (line,) = ledger.leases(run.id)
        ledger.released(line)
        assert ledger.finish(run.id, ended(Cause.STOPPED, run_id=run.id))
    return run


def test_what_may_hold_something_of_ours_and_cannot_be_asked_is_said_at_the_end(
    fake: FakeCloud, home: Path, tmp_path: Path
) -> None:
    fails(home)
    run = held("sagemaker", "held", region="us-east-1")
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    done = command("reap", "-y")
    assert fake.alive() == [], done.stderr
    assert done.returncode == 125
    last = done.stderr.strip().splitlines()[-1]
    assert "failed: oops" in done.stderr
    assert run.id in last or run.id in done.stderr.splitlines()[-2]
    assert "sagemaker (us-east-1) could not be asked" in done.stderr


def test_a_login_that_was_used_and_holds_nothing_is_a_note(fake: FakeCloud, home: Path) -> None:
    fails(home)
    held("sagemaker", "over", over=True, region="us-east-1")
    done = command("reap", "-y")
    assert (done.returncode, "note: sagemaker" in done.stderr) == (0, True), done.stderr


def test_a_login_that_was_never_used_is_a_note_and_not_asked(fake: FakeCloud, home: Path) -> None:
    profile(home, f"credential_process = {script(home / 'asked', f'touch {home}/was-asked')}\n")
    kubeconfig(home, exec=plugin(script(home / "plugin", f"touch {home}/was-asked")))
    held("lambda", "other", over=True)
    done = command("reap", "-y")
    assert done.returncode == 0, done.stderr
    assert not (home / "was-asked").exists()
    for name in ("sagemaker", "k8s"):
        assert f"`cvl reap --remote {name}` asks there too" in done.stderr
    named = command("reap", "-y", "--remote", "sagemaker")
    assert (named.returncode, (home / "was-asked").exists()) == (125, True)
    assert "sagemaker could not be asked" in named.stderr


@pytest.mark.parametrize("how", ["file", "environment", "table"])
def test_a_login_that_the_configuration_names_is_asked(
    how: str, fake: FakeCloud, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(home)
    held("lambda", "other", over=True)
    file = home / ".config/cvl/cvl.toml"
    file.parent.mkdir(parents=True)
    if how == "environment":
        monkeypatch.setenv("CVL_RUNNER", "sagemaker")
    else:
        table = "[runner.sagemaker]\nregion = 'us-east-1'\n"
        file.write_text("runner = 'sagemaker'\n" if how == "file" else table)
    done = command("reap", "-y")
    assert done.returncode == 125
    where = "sagemaker (us-east-1)" if how == "table" else "sagemaker"
    assert f"{where} could not be asked" in done.stderr


def configured(home: Path, text: str) -> None:
    file = home / ".config/cvl/cvl.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)


def test_who_is_asked_is_whom_the_configuration_names(
    fake: FakeCloud, home: Path, tmp_path: Path
) -> None:
    """By the profile, region or cluster that it names: others may have no login at all."""
    failing = f"credential_process = {script(home / 'fails', 'echo oops >&2; exit 1')}\n"
    profile(home, f"[profile ml]\n{failing}")
    configured(home, "[runner.sagemaker]\nregion = 'eu-west-1'\nprofile = 'ml'\n")
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    done = command("reap", "-y")
    assert (done.returncode, fake.alive()) == (125, []), done.stderr
    assert "sagemaker (eu-west-1, ml) could not be asked" in done.stderr
    assert "failed: oops" in done.stderr
    assert "sagemaker could not" not in done.stderr.replace("note: sagemaker", "")


def test_a_cluster_that_the_configuration_names_is_asked(fake: FakeCloud, home: Path) -> None:
    (home / ".config/cvl").mkdir(parents=True)
    (home / ".config/cvl/kube").write_text("users: 5\n")
    (home / ".config/cvl/cvl.toml").write_text("[runner.k8s]\nkubeconfig = 'kube'\n")
    done = command("reap", "-y")
    assert done.returncode == 125
    assert f"k8s ({home}/.config/cvl/kube) could not be asked" in done.stderr
    assert "users must be a list" in done.stderr


def test_only_one_may_be_asked(fake: FakeCloud, home: Path, tmp_path: Path) -> None:
    everything(home)
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    done = command("reap", "-y", "--remote", "lambda")
    assert (done.returncode, fake.alive(), done.stderr.count("note")) == (0, [], 0)
    nowhere = command("reap", "-y", "--remote", "nowhere")
    assert nowhere.returncode == 2
    assert "nowhere" in nowhere.stderr


def test_a_broken_file_of_ours_keeps_nobody_back(
    fake: FakeCloud, home: Path, tmp_path: Path
) -> None:
    file = home / ".config/cvl/cvl.toml"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff = [\n")
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    command("reap", "-y")
    assert fake.alive() == []


UNKNOWN = {
    "table": "[runner.nowhere]\nhost = 'h'\n",
    "name": "runner = 'nowhere'\n",
    "empty": "[runner.sagemaker]\n",
    "option": "[runner.sagemaker]\nprofile = 'theirs'\n",
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_a_project_names_nobody_who_must_be_asked(
    text: str, fake: FakeCloud, home: Path, tmp_path: Path
) -> None:
    """A checkout of somebody else's would keep a timer from ever being content."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout/cvl.toml").write_text(text)
    done = command("reap", "-y", cwd=tmp_path / "checkout")
    assert (done.returncode, done.stdout) == (0, "nothing to reap\n"), done.stderr


@pytest.mark.parametrize("what", ["table", "name"])
def test_a_runner_that_there_is_not_is_a_note_that_names_the_file(
    what: str, fake: FakeCloud, home: Path
) -> None:
    configured(home, UNKNOWN[what])
    done = command("reap", "-y")
    assert done.returncode == 0, done.stderr
    assert f"note: {home}/.config/cvl/cvl.toml: there is no runner" in done.stderr
    assert "nowhere" in done.stderr


@pytest.mark.parametrize("broken", [everything, hanging_both], ids=["broken", "hanging"])
def test_the_timer_reaps_beside_broken_logins(
    broken: Callable[[Path], None], fake: FakeCloud, home: Path, tmp_path: Path
) -> None:
    """As cron runs it: nothing in the environment but what was kept for it."""
    (home / "bin").mkdir()
    program(home, "crontab", CRONTAB)
    done = install(user(home, LAMBDA_API_KEY=fake.key))
    assert done.returncode == 0, done.stderr
    broken(home)
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    (line,) = (home / "table").read_text().splitlines()
    words = line.split(" ", 5)[5].replace("\\%", "%")
    bare = {"HOME": str(home), "PATH": "/usr/bin:/bin", "CVL_TEST_MARK": str(tmp_path)}
    argv = ["/bin/sh", "-c", words]
    with subprocess.Popen(argv, env=bare, cwd=home, start_new_session=True) as ran:
        try:
            wait_for(lambda: not fake.alive(), SOON)
        finally:
            os.killpg(ran.pid, 15)
    wait_for(lambda: not marked(tmp_path), 10)


def test_the_places_of_the_ledger_are_asked_each_time(fake: FakeCloud, home: Path) -> None:
    """By region and profile, by context and kubeconfig; what is long over is not."""
    profile(home, PAIR)
    here = Ledger(ledger_file())
    one = held("sagemaker", "one", region="eu-west-1", profile="p", output="s3://x")
    held("sagemaker", "two", over=True, region="us-west-2")
    held("k8s", "kube", context="far", kubeconfig="/x", namespace="ml")
    found = targets(here, {}).targets
    shown = {str(each): each for each in found if not each.every}
    assert {"sagemaker (eu-west-1, p)", "sagemaker", "k8s (far, /x)", "lambda"} <= {*shown}
    assert shown["sagemaker (eu-west-1, p)"].holds == (one.id,)
    assert shown["k8s (far, /x)"].handle == {"context": "far", "kubeconfig": "/x"}
    assert [each.runner for each in found if each.every] == ["sagemaker"]


def test_all_places_are_asked_once_an_hour(fake: FakeCloud, home: Path) -> None:
    profile(home, PAIR)
    known = targets(Ledger(ledger_file()), {"sagemaker": {}})
    assert any(each.every for each in known.targets)
    from cvl.operations.reap_targets import EVERY, looked_everywhere

    looked_everywhere("sagemaker")
    assert not any(e.every for e in targets(Ledger(ledger_file()), {"sagemaker": {}}).targets)
    earlier = time.time() - EVERY
    os.utime(state_dir() / "reap/sagemaker", (earlier, earlier))
    assert any(e.every for e in targets(Ledger(ledger_file()), {"sagemaker": {}}).targets)


def test_what_is_no_runner_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        targets(Ledger(tmp_path / "ledger.db"), {}, "nowhere")


def test_without_its_key_what_holds_a_machine_is_said(
    fake: FakeCloud, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rented(Ledger(ledger_file()), tmp_path)
    monkeypatch.delenv("LAMBDA_API_KEY")
    done = command("reap", "-y")
    assert done.returncode == 125
    assert run.id in done.stderr
    assert len(fake.alive()) == 1


def test_who_answers_first_is_heard_first() -> None:
    def slow() -> str:
        time.sleep(0.3)
        return "slow"

    def bad() -> str:
        raise AuthError("no")

    def never() -> str:
        time.sleep(20)
        return "never"

    began = time.monotonic()
    calls: list[Callable[[], str]] = [never, slow, lambda: "fast", bad]
    found = list(as_they_come(calls, [0.6, 10, 10, 10]))
    assert [place for place, _ in found[2:]] == [1, 0]
    assert {place for place, _ in found[:2]} == {2, 3}
    assert isinstance(found[3][1], TimeoutError)
    assert time.monotonic() - began < 5


def test_what_several_ways_lead_to_is_found_once(
    fake: FakeCloud, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    ledger = Ledger(ledger_file())
    known = targets(ledger, {}, "lambda")
    twice = type(known)(targets=(*known.targets, Target(runner="lambda", handle={})))
    monkeypatch.setattr(reap_survey, "targets", lambda *_: twice)
    found = [each for batch in reap_survey.Survey(Console(), {}).batches() for each in batch]
    assert [each.kind for each in found] == ["instance"]
    assert reap_findings.dearest_first(found) == found
