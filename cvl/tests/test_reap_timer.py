"""`cvl reap --install`: what it writes is run here as cron and systemd would run it."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cvl.cleanup.guardian_client import environment
from cvl.cleanup.reap_timer import environment_text, installed, write_privately
from cvl.core.errors import UsageError
from cvl.core.paths import PLACES
from cvl.providers import timer_variables
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.tests.test_reap import elsewhere, rented, settled

CRONTAB = """#!/bin/sh
# as crontab(1), as far as -l and - go
case $1 in
-l) cat "$HOME/table" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; } ;;
-) cat >"$HOME/table" ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$HOME/systemctl"
"""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LambdaCloud]:
    with LambdaCloud(Settings(request_interval=0, launch_interval=0, boot_seconds=0)) as cloud:
        settled(monkeypatch, tmp_path / "ours", cloud)
        yield cloud


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a percent sign and a space in its name: both mean something to cron or sh."""
    home = tmp_path / "50% home"
    (home / "bin").mkdir(parents=True)
    return home


def program(home: Path, name: str, text: str) -> None:
    (home / "bin" / name).write_text(text)
    (home / "bin" / name).chmod(0o755)


def user(home: Path, **more: str) -> Mapping[str, str]:
    """Return the environment of a user who lives there, with our key."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    return {**kept, "HOME": str(home), "PATH": path, "CVL_STATE_DIR": str(home / "state"), **more}


def install(env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "cvl", "reap", "--install"]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)


def kept(home: Path) -> Path:
    """Return the file that holds the key."""
    file = home / ".config/cvl/reap.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return file


def test_cron_reaps_what_is_late(cloud: LambdaCloud, home: Path, tmp_path: Path) -> None:
    program(home, "crontab", CRONTAB)
    (home / "table").write_text("0 1 * * * make tea\n")
    env = user(home)
    assert not installed({**env})
    for _ in range(2):
        done = install(env)
        assert (done.returncode, "every 10 minutes" in done.stdout) == (0, True), done.stderr
    tea, line = (home / "table").read_text().splitlines()
    assert tea == "0 1 * * * make tea"
    assert cloud.key not in line
    assert cloud.key in kept(home).read_text()
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    command = line.split(" ", 5)[5].replace("\\%", "%")  # crontab(5)
    bare = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    ran = subprocess.run(
        ["/bin/sh", "-c", command], env=bare, cwd=home, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert cloud.alive() == []


def test_a_systemd_timer_reaps_what_is_late(
    cloud: LambdaCloud, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(home, "systemctl", SYSTEMCTL)
    (home / "run/systemd").mkdir(parents=True)
    (home / "run/systemd/private").touch()
    env = user(home, XDG_RUNTIME_DIR=str(home / "run"))
    done = install(env)
    assert (done.returncode, "cvl-reap.timer" in done.stdout) == (0, True), done.stderr
    assert "enable --now cvl-reap.timer" in (home / "systemctl").read_text()
    monkeypatch.setenv("HOME", str(home))
    assert installed({"HOME": str(home)})
    unit = (home / ".config/systemd/user/cvl-reap.service").read_text()
    assert cloud.key not in unit
    said = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    assert said["EnvironmentFile"] == str(kept(home)).replace("%", "%%")  # systemd.unit(5)
    given = dict(line.split("=", 1) for line in shlex.split(kept(home).read_text()))
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    words = shlex.split(said["ExecStart"].replace("%%", "%").replace("$$", "$"))
    ran = subprocess.run(
        words,
        env={"HOME": str(home), **given},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert cloud.alive() == []


def test_with_neither_it_says_what_to_run(cloud: LambdaCloud, home: Path) -> None:
    env = {**user(home), "PATH": str(home / "bin")}
    done = install(env)
    assert done.returncode == 125
    assert "neither" in done.stderr
    assert "-m cvl reap -y" in done.stderr
    assert cloud.key not in done.stderr


BROKEN: Mapping[str, tuple[Mapping[str, str], str]] = {
    "no cron": ({}, "neither"),
    "crontab refuses": ({"crontab": "#!/bin/sh\n[ $1 = -l ] || { echo no >&2; exit 1; }\n"}, "no"),
    "crontab is no program": ({"crontab": "\0"}, "neither"),
    "reload fails": ({"systemctl": "#!/bin/sh\ncase $* in *reload) exit 3;; esac\n"}, "daemon-rel"),
    "enable fails": ({"systemctl": "#!/bin/sh\ncase $* in *enable*) exit 1;; esac\n"}, "enable"),
    "the start fails": ({"systemctl": "#!/bin/sh\ncase $* in *--now*) exit 1;; esac\n"}, "--now"),
    "no systemctl": ({"systemctl": ""}, "systemctl cannot be run"),
}
"""What there is in place of cron or systemd, and what is said then."""


def folder_of(home: Path, programs: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment of a user with just these programs."""
    for name, text in programs.items():
        if text:
            program(home, name, text)
    runtime = {}
    if "systemctl" in programs:
        (home / "run/systemd").mkdir(parents=True)
        (home / "run/systemd/private").touch()
        runtime = {"XDG_RUNTIME_DIR": str(home / "run")}
    return {**user(home, **runtime), "PATH": str(home / "bin")}


def holding(home: Path, key: str) -> list[str]:
    """Return the files that hold the key, and whatever looks like a timer."""
    files = [path for path in home.rglob("*") if path.is_file() and path.parent.name != "bin"]
    found = [str(path) for path in files if key.encode() in path.read_bytes()]
    return found + [str(path) for path in files if path.name.startswith(("cvl-reap", "reap.env"))]


@pytest.mark.parametrize(("programs", "says"), BROKEN.values(), ids=BROKEN)
def test_a_failed_installation_leaves_nothing(
    programs: Mapping[str, str], says: str, cloud: LambdaCloud, home: Path
) -> None:
    env = folder_of(home, programs)
    done = install(env)
    assert (done.returncode, done.stdout) == (125, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert holding(home, cloud.key) == []


@pytest.mark.parametrize("way", ["cron", "systemd"])
def test_a_failed_second_installation_leaves_the_first(
    way: str, cloud: LambdaCloud, home: Path
) -> None:
    programs = {"crontab": CRONTAB} if way == "cron" else {"systemctl": SYSTEMCTL}
    env = {**folder_of(home, programs), "PATH": user(home)["PATH"]}
    assert install(env).returncode == 0
    before = contents(home)
    cron = CRONTAB.replace("-) cat", "-) exit 1; cat")
    system = "#!/bin/sh\ncase $* in *--now*) exit 1;; esac\n"
    program(home, *(("crontab", cron) if way == "cron" else ("systemctl", system)))
    assert install({**env, "LAMBDA_API_KEY": "another-key"}).returncode == 125
    assert contents(home) == before
    assert cloud.key in kept(home).read_text()


def contents(home: Path) -> dict[str, bytes]:
    """Return all files that an installation writes."""
    names = ("reap.env", "cvl-reap.service", "cvl-reap.timer", "table")
    return {path.name: path.read_bytes() for path in home.rglob("*") if path.name in names}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("at", ["daemon-reload", "enable cvl"])
def test_whoever_is_killed_on_the_way_has_written_no_key(
    at: str, number: signal.Signals, cloud: LambdaCloud, home: Path
) -> None:
    stuck = f"#!/bin/sh\ncase $* in *{at!r}*) kill -{int(number)} $PPID; sleep 1;; esac\n"
    stuck = stuck.replace("'", '"')
    env = {**folder_of(home, {"systemctl": stuck}), "PATH": user(home)["PATH"]}
    assert install(env).returncode != 0
    found = holding(home, cloud.key)
    assert [each for each in found if "reap.env" in each] == []
    assert number is not signal.SIGINT or found == []


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_only_the_owner_can_read_it_whatever_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_privately(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / "file").symlink_to(tmp_path / "other")
    write_privately(tmp_path / "file", b"key")
    assert (tmp_path / "other").read_text() == "mine"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("name", ["AWS_PROFILE", "KUBECONFIG", "AWS_REGION"])
@pytest.mark.parametrize("value", ["a'b", 'a"b', "a\\b", "a\nLD_PRELOAD=x", "a\rb", "a\x1bb"])
def test_what_sh_and_systemd_would_read_differently_is_refused(
    value: str, name: str, cloud: LambdaCloud, home: Path
) -> None:
    program(home, "crontab", CRONTAB)
    with pytest.raises(UsageError, match=f"{name} holds a quote") as told:
        given({name: value, "LAMBDA_API_KEY": cloud.key})
    assert value not in str(told.value)
    done = install(user(home, **{name: value}))
    assert done.returncode == 2
    assert holding(home, cloud.key) == []


@pytest.mark.parametrize("value", ["a b", "$HOME", "`id`", "$(id)", "a#b", "%h", "a;b", "~", "é"])
def test_what_is_written_is_read_exactly(value: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text(environment_text({}, {"AWS_PROFILE": value}))
    words = ["sh", "-c", '. "$0"; printf %s "$AWS_PROFILE"', str(file)]
    told = subprocess.run(words, capture_output=True, check=True, timeout=10)
    assert told.stdout.decode() == value
    assert file.read_text().startswith(f"AWS_PROFILE='{value}'\n")


ASKED: Mapping[str, str] = {
    "AWS_PROFILE": "p",
    "AWS_DEFAULT_PROFILE": "p",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": "aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "aws/credentials",
    "AWS_CA_BUNDLE": "ca.pem",
    "AWS_ENDPOINT_URL": "https://proxy.example",
    "AWS_ENDPOINT_URL_SAGEMAKER": "https://sagemaker.example",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_STS_REGIONAL_ENDPOINTS": "regional",
    "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "token",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "token",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ACCESS_KEY_ID": "AKIAX",
    "AWS_SECRET_ACCESS_KEY": "secret-secret",
    "KUBECONFIG": "a:/b",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "CLOUDSDK_CONFIG": "gcloud",
    "GOOGLE_APPLICATION_CREDENTIALS": "key.json",
    "AZURE_CONFIG_DIR": "azure",
    "AZURE_CLIENT_SECRET": "secret-secret",
    "LAMBDA_API_BASE": "https://lambda.example/api/v1",
    "LAMBDA_API_KEY_FILE": "key",
    "LAMBDA_API_RPS": "1",
    "CVL_CONFIG_DIR": "config",
    "CVL_SSH_CONFIG": "ssh_config",
    "CVL_RUNNER": "lambda",
    "XDG_CONFIG_HOME": "/x",
    "NO_PROXY": "10.0.0.0/8",
    "PATH": "bin:/usr/bin",
}
"""What decides who is asked, as whom and how; without a leading slash: from this folder."""
UNASKED = (
    *("AWS_PAGER", "AWS_CLI_AUTO_PROMPT", "AWS_EXECUTION_ENV", "AWS_BEARER_TOKEN_BEDROCK"),
    *("CVL_RUN_ID", "CVL_WORK_DIR", "HF_TOKEN", "LD_PRELOAD", "PS1", "OPENAI_API_KEY"),
)


def given(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a timer is given, as systemd reads it."""
    told = environment_text(environ, timer_variables(environ))
    return dict(word.split("=", 1) for word in shlex.split(told))


@pytest.mark.parametrize("name", ASKED)
def test_a_timer_asks_whom_we_ask(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, ASKED[name])
    told = given({name: ASKED[name]})[name]
    assert told == environment({})[name]  # as a guardian is
    relative = name in PLACES and not ASKED[name].startswith("/")
    assert told.startswith(str(tmp_path)) == relative


@pytest.mark.parametrize("name", UNASKED)
def test_what_says_nothing_of_that_is_not_written_down(name: str) -> None:
    assert name not in given({name: "'value' of \"any\" kind"})


def test_a_login_of_today_is_not_written_down() -> None:
    pair = {"AWS_ACCESS_KEY_ID": "AKIAX", "AWS_SECRET_ACCESS_KEY": "secret-secret"}
    assert pair.items() <= given(pair).items()
    told = given({**pair, "AWS_SESSION_TOKEN": "token-token", "AWS_PROFILE": "p"})
    assert {name for name in told if name.startswith("AWS_")} == {"AWS_PROFILE"}


def test_a_program_that_gives_credentials_is_found_by_the_timer() -> None:
    """Also where the path holds a folder that sh and systemd would read differently."""
    assert given({"PATH": "/mnt/c/O'Brien:/opt/tools:/usr/bin"})["PATH"] == "/opt/tools:/usr/bin"
