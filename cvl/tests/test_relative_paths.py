"""A path that is kept means the same wherever it is read again: the guardian's folder is `/`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cleanup.guardian_client import Guardian, environment
from cvl.cleanup.guardian_keeper import DONE
from cvl.cleanup.reap_timer import environment_text
from cvl.cli import config
from cvl.cli.options import parameters
from cvl.cli.parameter_types import PATH
from cvl.core.handles import checked
from cvl.core.paths import LISTS, PLACES, anchored, ledger_file
from cvl.core.process import me
from cvl.core.spec import JobSpec, Source, new_run_id
from cvl.host.launch import Setup
from cvl.ledger import Ledger, Run, RunState
from cvl.providers import BUILT_IN, every, load
from cvl.providers.kubernetes.client import Client
from cvl.providers.kubernetes.kubeconfig import access
from cvl.providers.ssh import SSHRunner, provider_at
from cvl.run.log import run_folder
from cvl.runners import K8sRunner
from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd
from cvl.transports.ssh.openssh import OpenSSH

list(every())  # each runner says which variables name its files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a person stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CVL_STATE_DIR", "state")
    return tmp_path


@pytest.mark.parametrize("name", sorted(PLACES))
def test_no_variable_that_names_a_file_is_relative_for_the_guardian(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "a/b:c")
    told = environment({})[name]
    parts = [f"{folder}/a/b", f"{folder}/c"] if name in LISTS else [f"{folder}/a/b:c"]
    assert told == os.pathsep.join(parts)


@given(st.dictionaries(st.sampled_from(sorted(PLACES)), st.text(st.sampled_from("ab/~.:"))))
def test_an_environment_is_made_absolute_once_and_for_all(environ: dict[str, str]) -> None:
    told = anchored(environ)
    assert told.keys() == environ.keys()
    assert anchored(told) == told
    for name, value in told.items():
        for part in value.split(os.pathsep) if name in LISTS else [value]:
            assert not part or part[0] in "/~"


def test_a_real_guardian_finds_what_was_named_from_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_here = {
        "KUBECONFIG": "kube/one:two",
        "AWS_CONFIG_FILE": "aws/config",
        "CVL_SSH_CONFIG": "ssh_config",
        "SSL_CERT_FILE": "../ca.pem",
        "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    }
    for name, value in given_here.items():
        monkeypatch.setenv(name, value)
    run_id, ledger = new_run_id("guarded"), Ledger(ledger_file())
    ledger.begin(Run(id=run_id, runner="lambda", owner=me(), handle={"run": run_id}))
    ledger.advance(run_id, RunState.LAUNCHING)
    guardian = Guardian(run_id, {"api_key": "k"}, run_folder(run_id))
    try:
        read = Path(f"/proc/{guardian.pid}/environ").read_bytes().decode().split("\0")
        seen = dict(line.split("=", 1) for line in read if "=" in line)
        cwd = Path(f"/proc/{guardian.pid}/cwd").readlink()
    finally:
        guardian.hang_up(DONE)
        guardian.wait()
    assert cwd == Path("/")
    assert seen["KUBECONFIG"] == f"{folder}/kube/one:{folder}/two"
    assert seen["AWS_CONFIG_FILE"] == f"{folder}/aws/config"
    assert seen["CVL_SSH_CONFIG"] == f"{folder}/ssh_config"
    assert seen["SSL_CERT_FILE"] == f"{folder.parent}/ca.pem"
    assert seen["AWS_SHARED_CREDENTIALS_FILE"] == "~/.aws/credentials", "botocore expands it"
    assert seen["CVL_STATE_DIR"] == f"{folder}/state"


def test_a_timer_is_given_nothing_relative(folder: Path) -> None:
    asked = {"KUBECONFIG": "a:/b", "AWS_CONFIG_FILE": "c"}
    text = environment_text({"SSL_CERT_FILE": "d"}, asked)
    assert f"KUBECONFIG='{folder}/a:/b'\n" in text
    assert f"AWS_CONFIG_FILE='{folder}/c'\n" in text
    assert f"SSL_CERT_FILE='{folder}/d'\n" in text


# What a handle keeps


def test_a_handle_names_the_key_and_the_configuration_by_whole_paths(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    (folder / "home").mkdir()
    for at in ("config", "home/config", "key", "home/key"):
        (folder / at).touch(mode=0o600)
    for given_key, given_config in (("key", "config"), ("~/key", "~/config")):
        monkeypatch.setenv("CVL_SSH_CONFIG", given_config)
        key = Path(given_key)
        provider = provider_at("ssh", OpenSSH("box", key=key), key, Setup())
        spec = JobSpec(run_id="run-1", argv=("x",), source=Source(root=folder, folder="a"))
        handle = provider.handle(spec)
        home = "home/" if "~" in given_key else ""
        assert handle["key"] == f"{folder}/{home}key"
        assert handle["config"] == f"{folder}/{home}config"
        assert checked("ssh", handle, SSHRunner.acting, SSHRunner.files) == handle


@pytest.mark.parametrize("named", ["kubeconfig", "./kubeconfig", "sub/../kubeconfig"])
def test_a_kubeconfig_is_kept_by_its_whole_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (folder / "kubeconfig").write_text(CONFIG)
    client = K8sRunner(kubeconfig=named)._client
    monkeypatch.chdir("/")
    assert client.address == {"context": "c", "kubeconfig": f"{folder}/kubeconfig"}
    assert Client(None, Path(folder, "kubeconfig")).access.server == "https://192.0.2.1"


CONFIG = """
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "https://192.0.2.1", certificate-authority: ca.pem}}]
users: []
"""
USERS = """
users:
- name: u
  user:
    tokenFile: token
    client-key: keys/key
    exec: {command: ./bin/login, apiVersion: client.authentication.k8s.io/v1}
"""


def test_paths_in_a_kubeconfig_are_relative_to_the_file_they_stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a program's, also where it stands in the second of two files."""
    for at, text in (("one/config", CONFIG), ("two/config", USERS)):
        (folder / at).parent.mkdir()
        (folder / at).write_text(text)
    monkeypatch.setenv("KUBECONFIG", "one/config:two/config")
    found = access()
    monkeypatch.chdir("/")
    assert found.cluster["certificate-authority"] == f"{folder}/one/ca.pem"
    assert found.user["tokenFile"] == f"{folder}/two/token"
    assert found.user["client-key"] == f"{folder}/two/keys/key"
    assert found.user["exec"]["command"] == f"{folder}/two/bin/login"


@pytest.mark.parametrize("name", ["ssh", "docker", "k8s", "lambda", "sagemaker", "local"])
def test_options_that_take_a_file_are_paths_of_a_configuration_file(name: str) -> None:
    """So that one in `~/.config/cvl/cvl.toml` is relative to that file."""
    assert name in BUILT_IN
    kinds = {each.name: each.option.type for each in parameters(load(name))}
    for each in {"ssh_key_path", "kubeconfig"} & kinds.keys():
        assert kinds[each] is PATH, each


def test_a_key_named_in_the_user_s_file_is_beside_that_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cvl.cli.run import own_options

    (folder / "config/cvl").mkdir(parents=True)
    (folder / "config/cvl/cvl.toml").write_text('[runner.ssh]\nssh_key_path = "keys/id"\n')
    environ = {"XDG_CONFIG_HOME": str(folder / "config")}
    read = config.load(folder, environ)
    monkeypatch.setattr("cvl.cli.run.settings", lambda: read)
    params = {"ssh": "box", "host": None, "ssh_key_path": None}
    found = own_options(SSHRunner, "ssh", params)
    assert found["ssh_key_path"] == folder / "config/cvl/keys/id"


def test_a_run_that_was_started_with_relative_paths_is_found_from_anywhere(
    host: Sshd, tmp_path: Path
) -> None:
    desk = Desk(
        folder=tmp_path,
        options=("--ssh", "testhost", "--ssh-key-path", "key"),
        env={**host.env, "CVL_SSH_CONFIG": "config", "CVL_STATE_DIR": str(tmp_path / "state")},
    )
    shutil.copy(host.ssh_config, desk.repo / "config")
    shutil.copy(host.key, desk.repo / "key")
    done = desk.sh("echo a >a; exit 3", "-d", "-o", "results")
    assert done.code == 0, done.err
    (desk.folder / "elsewhere").mkdir()
    env = {**desk.environment, **host.env}
    del env["CVL_SSH_CONFIG"]
    import subprocess
    import sys

    words = [sys.executable, "-m", "cvl", "attach", desk.runs()[0]]
    ended = subprocess.run(
        words, cwd=desk.folder / "elsewhere", env=env, capture_output=True, check=False
    )
    assert ended.returncode == 3, ended.stderr
    assert next((desk.repo / "results").rglob("a")).read_bytes() == b"a\n"
