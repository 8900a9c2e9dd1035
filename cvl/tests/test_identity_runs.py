"""Commands as a person gives them, while a name, a kubeconfig or a key leads somewhere else."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.core.process import parse
from cvl.ledger import Ledger
from cvl.testing import kube
from cvl.testing.cli_harness import Desk, wait_for
from cvl.testing.kube import Cluster
from cvl.testing.kubernetes import KubernetesCluster
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.testing.machine import possible
from cvl.testing.sagemaker import AwsCloud
from cvl.testing.sagemaker.cloud import ACCOUNT, missing
from cvl.testing.sshd import Sshd
from cvl.tests.clouds import desk as aws_desk
from cvl.tests.kubes import FAST, ours

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WAIT = 'echo ready; until [ -e "$CVL_WORK_DIR/go" ]; do sleep 0.05; done; echo a >a; exit 3'


def detached(desk: Desk, script: str, *more: str) -> str:
    done = desk.sh(script, "-d", *more)
    assert done.code == 0, done.err
    return done.out.decode().strip()


def concludes_nothing(desk: Desk, run: str, *words: str) -> str:
    """Give a command; see that it says where the run is and that the ledger is as it was."""
    before = desk.ps()[0]["state"]
    done = desk.cvl(*words)
    assert done.code == 125, (words, done.err)
    assert "it ran on" in done.err, (words, done.err)
    assert desk.ps()[0]["state"] == before != "ended", words
    assert run in desk.runs()
    return done.err


# An alias of ssh_config


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Sshd, Sshd]]:
    with Sshd(tmp_path / "one") as one, Sshd(tmp_path / "two") as two:
        yield one, two


@pytest.mark.parametrize("option", ["--ssh", "--docker"])
def test_an_alias_that_leads_to_another_machine(
    hosts: tuple[Sshd, Sshd], tmp_path: Path, option: str
) -> None:
    one, two = hosts
    desk = Desk(folder=tmp_path, options=(option, "testhost"), env=one.env)
    run = detached(desk, WAIT)
    before = one.ssh_config.read_bytes()
    one.ssh_config.write_bytes(two.ssh_config.read_bytes())
    one.cut()  # or the kept connection would still lead to the first
    more = (["logs", run], ["fetch", run])
    for words in (["attach", run], ["stop", run], ["logs", "-f", run], *more):
        said = concludes_nothing(desk, run, *words)
        assert "Traceback" not in said
        assert "testhost is now" in said
        assert "no such run" not in said
    desk.cvl("reap", "--host", "testhost")
    assert desk.ps()[0]["state"] == "running"
    assert "testhost is now" in desk.cvl("ps").err
    one.ssh_config.write_bytes(before)
    two.cut()
    (one.home / ".cvl/jobs" / run / "work/go").touch()
    assert desk.cvl("attach", run).code == 3
    assert desk.result("a") == b"a\n"


def test_a_run_that_its_own_machine_has_lost_is_lost(host: Sshd, tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=("--ssh", "testhost"), env=host.env)
    run = detached(desk, "exit 0")
    wait_for(lambda: desk.ps()[0]["exit_code"] is not None)
    shutil.rmtree(host.home / ".cvl/runs" / run)
    done = desk.cvl("fetch", run)
    assert "no such run" in done.err
    assert "still on" not in done.err
    done = desk.cvl("attach", run)
    assert (done.code, desk.ps()[0]["cause"]) == (125, "lost"), done.err


# A kubeconfig


@pytest.mark.docker
def test_a_context_of_the_same_name_on_another_cluster(
    fake_cluster: Cluster, tmp_path: Path
) -> None:
    with kube.fresh_namespace(fake_cluster) as namespace, KubernetesCluster() as other:
        config = tmp_path / "repo/kubeconfig"
        more = ("--k8s", "--namespace", namespace, "--image", fake_cluster.image)
        desk = Desk(folder=tmp_path, options=more, env={"KUBECONFIG": "kubeconfig", **FAST})
        config.write_bytes(fake_cluster.kubeconfig.read_bytes())
        run = detached(desk, 'echo ready; until [ -e "$CVL_WORK_DIR/go" ]; do sleep .1; done')
        config.write_bytes(other.kubeconfig.read_bytes())
        for words in (["attach", run], ["logs", "-f", run], ["fetch", run], ["stop", run]):
            said = concludes_nothing(desk, run, *words)
            assert "the cluster of context" in said
        concludes_nothing(desk, run, "reap", "-y")
        config.write_bytes(fake_cluster.kubeconfig.read_bytes())
        assert ours(fake_cluster, run)
        done = desk.cvl("stop", run)
        assert (done.code, desk.ps()[0]["state"]) == (0, "ended"), done.err
        wait_for(lambda: not ours(fake_cluster, run))


@pytest.mark.docker
def test_without_the_right_to_read_kube_system_server_and_authority_tell(
    fake_cluster: Cluster, tmp_path: Path
) -> None:
    """And the uid, where both may read it, outweighs another address."""
    from cvl.core.errors import Elsewhere
    from cvl.providers.kubernetes.client import Client
    from cvl.providers.kubernetes.identity import confirm, identity_of

    config = tmp_path / "kubeconfig"
    config.write_bytes(fake_cluster.kubeconfig.read_bytes())
    admin, limited = (identity_of(Client(who, str(config))) for who in ("admin", "limited"))
    assert "uid=" in admin
    assert "uid=" not in limited
    for who in ("admin", "limited"):
        for noted in (admin, limited):
            confirm(Client(who, str(config)), noted)
    moved = tmp_path / "moved"
    moved.write_text(config.read_text().replace("https://127.0.0.1", "https://localhost"))
    confirm(Client("admin", str(moved)), admin)
    with pytest.raises(Elsewhere, match="may be another"):
        confirm(Client("limited", str(moved)), admin)


# A key


@pytest.fixture
def cloud() -> Iterator[LambdaCloud]:
    if why := possible():
        pytest.skip(why)
    settings = Settings(request_interval=0, launch_interval=0, hosts="machine", hang_seconds=5)
    with LambdaCloud(settings) as running:
        yield running
        assert not running.violations


def rental(folder: Path, cloud: LambdaCloud) -> Desk:
    fast = {"LAMBDA_API_RPS": "1000", "LAMBDA_LAUNCH_INTERVAL": "0", "LAMBDA_SETTLE": "1"}
    options = ("-y", "--remote", "lambda", "--gpu-type", "gpu_1x_a10", "--timeout", "5m")
    return Desk(folder=folder, options=options, env={**cloud.env, **fast}, left=lambda _run: ())


def forsaken(desk: Desk, cloud: LambdaCloud) -> str:
    """Start a run, kill its guardian, and cut its machine off the network."""
    run = detached(desk, "sleep 60", "--accept-unguarded")
    keeper = parse(Ledger(desk.state / "ledger.db").run(run).guardian)
    assert keeper
    os.kill(keeper.pid, signal.SIGKILL)
    for instance in cloud.alive():
        instance.host.power_cut()
    return run


def test_another_account_s_key_ends_and_closes_nothing(cloud: LambdaCloud, tmp_path: Path) -> None:
    desk = rental(tmp_path, cloud)
    run = forsaken(desk, cloud)
    with LambdaCloud(Settings(request_interval=0, launch_interval=0)) as other:
        strange = Desk(
            folder=tmp_path,
            options=desk.options,
            env={**desk.env, "LAMBDA_API_KEY": other.key, "LAMBDA_API_BASE": other.base},
        )
        for words in (["attach", run], ["stop", run], ["reap", "-y"]):
            said = concludes_nothing(strange, run, *words)
            assert cloud.state.account in said
            assert cloud.key not in said
            assert other.key not in said
    assert cloud.alive()
    assert desk.cvl("stop", run).code == 0
    assert (cloud.alive(), cloud.keys(), desk.ps()[0]["state"]) == ([], [], "ended")


def test_a_new_key_of_the_same_account_ends_and_closes_all(
    cloud: LambdaCloud, tmp_path: Path
) -> None:
    desk = rental(tmp_path, cloud)
    run = forsaken(desk, cloud)
    cloud.api.key = "secret_fake_new"
    renewed = Desk(
        folder=tmp_path,
        options=desk.options,
        env={**desk.env, "LAMBDA_API_KEY": cloud.api.key},
    )
    done = renewed.cvl("stop", run)
    assert done.code == 0, done.err
    assert (cloud.alive(), cloud.keys(), renewed.ps()[0]["state"]) == ([], [], "ended")


# An AWS account


def test_an_account_is_noted_without_a_request_of_its_own(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    with AwsCloud() as aws:
        desk = aws_desk(tmp_path, aws)
        done = desk.sh("true")
        handle = Ledger(desk.state / "ledger.db").run(desk.runs()[0]).handle
        assert handle["identity"] == f"account={ACCOUNT} region=us-east-1 endpoint={aws.url}", (
            done.err
        )
        assert aws.requests("GetCallerIdentity") == 1
