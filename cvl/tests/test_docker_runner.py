"""DockerContextRunner on a real sshd with a real Docker engine behind it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvl.core.spec import Cause
from cvl.runners import DockerContextRunner
from cvl.testing.cli_harness import Client, wait_for
from cvl.testing.docker_engine import Engine
from cvl.testing.fault_proxy import Cable
from cvl.testing.sshd import Sshd
from cvl.tests.boxes import FOLDER, Box, box, slowness

pytestmark = pytest.mark.docker

GRACE = 1.0
IN_A_BOX = 'docker run --rm -v "$PWD:/w" -w /w "$IMG"'


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    yield shared_engine
    shared_engine.clear()


@pytest.fixture
def one(engine: Engine, docker_host: Sshd, tmp_path: Path) -> Box:
    return box(tmp_path, engine, docker_host.env)


@pytest.fixture
def built(one: Box) -> Box:
    """Return a box whose image is there already."""
    one.engine.docker("tag", one.engine.image, one.image)
    return one


def runs_of(host: Sshd, base: Path | None = None) -> dict[str, list[str]]:
    """Return what is left of each run on the host."""
    runs = (base or host.home / ".cvl") / "runs"
    return {run.name: sorted(path.name for path in run.iterdir()) for run in runs.iterdir()}


# --- build first


def test_a_missing_image_is_built_first_and_only_once(one: Box) -> None:
    first = one.run('docker run --rm "$IMG" echo in the box; echo after')
    assert first.code == 0, first.err
    assert first.out.index(b"building it now") < first.out.index(b"in the box\nafter\n")
    assert b"Step 2/2 : LABEL made=here" in first.out
    again = one.run('docker run --rm "$IMG" echo in the box')
    assert (again.code, again.out) == (0, b"in the box\n")


def test_build_can_be_forced_and_forbidden(one: Box) -> None:
    never = one.run('docker image inspect "$IMG"', "--build", "never")
    assert never.code == 1
    assert not one.tagged()
    for _ in range(2):
        always = one.run('docker image inspect -f found "$IMG"', "--build", "always")
        assert always.code == 0
        assert always.out.startswith(b"building it now\n")
        assert always.out.endswith(b"found\n")


def test_an_image_of_the_users_own_needs_no_build(one: Box) -> None:
    done = one.run("echo $CVL_IMAGE", "-e", "CVL_IMAGE=my/own")
    assert (done.code, done.out) == (0, b"my/own\n")


def test_the_build_preset_is_not_built_before_it_builds(one: Box) -> None:
    done = one.desk.cvl("run", *one.desk.options, "boxed", "build")
    assert done.code == 0
    assert done.out.count(b"building it now") == 1
    assert one.tagged()


def test_a_failed_build_is_called_that_and_nothing_else_runs(one: Box) -> None:
    one.write("Dockerfile", f"FROM {one.engine.image}\nCOPY nowhere /x\n")
    done = one.run("echo the job", "--json")
    assert done.code == 125
    assert b"building it now" in done.out
    assert b"nowhere" in done.out
    assert b"the job" not in done.out
    assert json.loads(done.err.splitlines()[-1])["cause"] == "build-failed"
    assert "build failed" in one.run("echo the job").err


def test_a_build_that_is_too_long_ends_with_the_run_that_is_stopped(one: Box) -> None:
    one.write("build.sh", "#!/bin/sh\necho building it now\nsleep 1000\n")
    with one.running("echo the job") as client:
        client.shows(b"building it now")
        client.signal(signal.SIGINT)
        done = client.ended()
    assert (done.code, done.out) == (130, b"building it now\n")
    assert not one.desk.left(one.run_id)


# --- what is asked of the machine


@pytest.mark.parametrize(
    ("why", "docker"),
    [
        ("Docker is not installed", None),
        ("not running", 'exec env DOCKER_HOST=unix:///nowhere/docker.sock {docker} "$@"'),
        (
            "no permission",
            "echo 'permission denied while trying to connect to the Docker daemon' >&2; exit 1",
        ),
    ],
)
def test_a_docker_that_cannot_be_used_is_told_and_nothing_starts(
    engine: Engine, tmp_path: Path, why: str, docker: str | None
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for tool in Path(folder).iterdir() if Path(folder).is_dir() else ():
            if tool.name != "docker" and not (tools / tool.name).is_symlink():
                (tools / tool.name).symlink_to(tool)
    if docker:
        (tools / "docker").write_text("#!/bin/sh\n" + docker.format(docker=shutil.which("docker")))
        (tools / "docker").chmod(0o755)
    with Sshd(tmp_path / "host", path=str(tools)) as host:
        mine = box(tmp_path / "desk", engine, host.env)
        refused = mine.run("echo the job")
        assert (refused.code, refused.out) == (125, b"")
        assert why in refused.err
        assert "hint: " in refused.err
        assert mine.desk.ps()[0]["cause"] == "not-started"
        for name in ("Dockerfile", "build.sh"):
            (mine.example / name).unlink()
        mine.write("example.yaml", "name: boxed\npresets: {sh: sh.sh}\n")
        plain = mine.run("echo no container needed")
        assert (plain.code, plain.out) == (0, b"no container needed\n"), plain.err


def test_what_is_short_is_warned_of_and_the_run_goes_on(built: Box) -> None:
    text = (built.example / "example.yaml").read_text()
    built.write("example.yaml", text + "resources: {gpu: 2, disk_gb: 100000}\n")
    done = built.run("echo goes on")
    assert (done.code, done.out) == (0, b"goes on\n")
    assert "cvl: testhost: " in done.err
    assert "the example asks for 100000 GB" in done.err
    assert "the example asks for " in done.err.replace("asks for 100000 GB", "")


def test_what_scripts_mount_is_there(built: Box, docker_host: Sshd) -> None:
    cache = docker_host.home / ".cache"
    shutil.rmtree(cache, ignore_errors=True)
    mounts = " ".join(
        f"--mount type=bind,src=$HOME/.cache/{name},dst=/c/{name}"
        for name in ("huggingface", "cvlization", "torch")
    )
    done = built.run(f'docker run --rm {mounts} "$IMG" ls /c')
    assert (done.code, done.out) == (0, b"cvlization\nhuggingface\ntorch\n")
    assert cache.stat().st_uid == os.getuid()


def test_no_cache_is_made_for_a_script_that_mounts_none(built: Box, docker_host: Sshd) -> None:
    shutil.rmtree(docker_host.home / ".cache", ignore_errors=True)
    assert built.run("true").code == 0
    assert built.run('docker run --rm -v "$PWD:/w" "$IMG" true').code == 0
    assert not (docker_host.home / ".cache").exists()


def test_what_scripts_mount_as_volumes_is_there_and_ours(built: Box, docker_host: Sshd) -> None:
    cache = docker_host.home / ".cache"
    shutil.rmtree(cache, ignore_errors=True)
    done = built.run(
        'docker run --rm -v "$HOME/.cache/torch:/c/a" --volume="$HOME/.cache/hub:/c/b:ro" '
        '--volume "$HOME/.cache/x y:/c/c" "$IMG" ls /c'
    )
    assert (done.code, done.out) == (0, b"a\nb\nc\n")
    assert sorted(each.name for each in cache.iterdir()) == ["hub", "torch", "x y"]


def test_other_folders_in_the_home_that_scripts_mount_are_made(
    built: Box, docker_host: Sshd
) -> None:
    home = docker_host.home
    for name in (".cache/models", ".weights"):
        shutil.rmtree(home / name, ignore_errors=True)
    done = built.run(
        'docker run --rm --mount "type=bind,src=$HOME/.cache/models/a b,dst=/c/a" '
        '--mount="type=bind,source=$HOME/.weights,target=/c/b,readonly" "$IMG" ls /c'
    )
    assert (done.code, done.out) == (0, b"a\nb\n")
    for missing in ("$HOME/.kaggle/key.json", "$PWD/no-such-folder", "/no-such-folder"):
        refused = built.run(f'docker run --rm --mount "type=bind,src={missing},dst=/c" "$IMG" true')
        assert refused.code == 125
        assert b"bind source path does not exist" in refused.out
    assert not (home / ".kaggle").exists()


def test_the_job_knows_its_run(built: Box) -> None:
    done = built.run(
        'echo "$CVL_RUN_ID $CVL_CONTAINER_NAME"; test -d "$CVL_WORK_DIR" && ls -A "$CVL_WORK_DIR"; '
        'cd ../../../.. && test "$PWD" = "$(git rev-parse --show-toplevel)" && echo root'
    )
    assert done.out.decode().split() == [built.run_id, f"cvl-{built.run_id}", "root"]


# --- stop

CONTAINERS = {
    "named": 'docker run -d --rm --name "$CVL_CONTAINER_NAME" "$IMG" sleep 1000',
    "unnamed": 'docker run -d "$IMG" sleep 1000',
    "deaf": 'docker run -d "$IMG" sh -c "trap \'\' TERM INT; while :; do sleep 1; done"',
    "by the real docker": 'PATH=${PATH#*:} docker run -d --name "$CVL_CONTAINER_NAME" "$IMG" top',
    "compose": "PATH=${PATH#*:} docker run -d --label "
    'com.docker.compose.project=$COMPOSE_PROJECT_NAME "$IMG" top',
    "past the shim, on our files": 'PATH=${PATH#*:} docker run -d -v "$PWD:/a,b" "$IMG" top',
    "past the shim, on the work folder": "env -i PATH=/usr/bin:/bin DOCKER_HOST=$DOCKER_HOST "
    'docker run -d --mount "type=bind,src=$CVL_WORK_DIR,dst=/w" "$IMG" top',
    "compose by another name": "PATH=${PATH#*:} docker run -d --label "
    'com.docker.compose.project=x --label com.docker.compose.project.working_dir=$PWD "$IMG" top',
    "restarting": 'docker run -d --restart always "$IMG" sh -c "sleep 0.2"',
}


def by_timeout(client: Client, one: Box, host: Sshd) -> tuple[int, float]:
    run = host.home / ".cvl" / "runs" / one.run_id
    wait_for(lambda: any(run.glob("ending.*")))
    return 124, time.monotonic()


def by_ctrl_c(client: Client, one: Box, host: Sshd) -> tuple[int, float]:
    client.signal(signal.SIGINT)
    return 130, time.monotonic()


def by_cvl_stop(client: Client, one: Box, host: Sshd) -> tuple[int, float]:
    began = time.monotonic()
    assert one.desk.cvl("stop", "--grace", f"{GRACE}s", one.run_id).code == 0
    return 143, began


@pytest.mark.parametrize("way", [by_timeout, by_ctrl_c, by_cvl_stop], ids=lambda way: way.__name__)
def test_no_container_outlives_its_run_and_no_other_is_touched(
    built: Box, docker_host: Sshd, way: Callable[[Client, Box, Sshd], tuple[int, float]]
) -> None:
    kinds = [CONTAINERS[name] for name in ("named", "unnamed", "deaf")]
    script = "; ".join([*kinds, "trap '' TERM INT; echo all started; while :; do sleep 1; done"])
    stranger = f"stranger-{os.getpid()}"
    above = f"{docker_host.home}/.cvl/jobs:/jobs"
    words = ("--name", stranger, "-v", above, built.engine.image, "sleep", "1000")
    built.engine.docker("run", "-d", *words)
    limits = ["--timeout", f"{8 * slowness(built.engine):.0f}s"] if way is by_timeout else []
    with built.running(script, "--grace", f"{GRACE}s", *limits) as client:
        client.shows(b"all started")
        assert len(built.engine.containers()) == 4
        code, began = way(client, built, docker_host)
        wait_for(lambda: built.engine.containers() == [stranger])
        gone = time.monotonic() - began
        done = client.ended()
    assert done.code == code, done.err
    assert gone < GRACE + 5 * slowness(built.engine)
    assert not built.desk.left(built.run_id)


UNKNOWN = {
    "absolute path": f"{shutil.which('docker')} run -d $IMG sleep 1000",
    "another PATH": "PATH=/usr/local/bin:/usr/bin:/bin; docker run -d $IMG sleep 1000",
    "login shell": 'bash -lc "PATH=\\${PATH#*:} docker run -d $IMG sleep 1000"',
}


@pytest.mark.parametrize("way", UNKNOWN)
def test_a_container_that_nothing_marks_is_told_and_lives(built: Box, way: str) -> None:
    built.engine.docker("run", "-d", "--name", "before", built.engine.image, "sleep", "1000")
    done = built.run(f"{UNKNOWN[way]}; exit 3")
    ident = done.out.decode().split()[-1][:12]
    assert done.code == 3
    assert f"docker rm -f {ident}`" in done.err
    assert len(built.engine.containers()) == 2
    assert "docker rm" not in built.run("docker run -d $IMG sleep 1000").err


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_left_behind_ends_with_the_script(built: Box, kind: str) -> None:
    done = built.run(CONTAINERS[kind] + "; exit 3", "--grace", "1s")
    assert done.code == 3, done.err
    assert built.engine.containers() == []


COMPOSE = """\
#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
    echo '{"SchemaVersion": "0.1.0", "Vendor": "us", "Version": "1"}'
    exit
fi
mine="--label com.docker.compose.project=$COMPOSE_PROJECT_NAME"
docker network create --subnet 198.18.255.240/28 $mine "${COMPOSE_PROJECT_NAME}_default"
"""


def test_the_network_of_a_compose_project_ends_with_its_run(built: Box) -> None:
    """What `docker compose run --rm` leaves; networks are few, an engine soon has none to give."""
    plugin = built.engine.folder / "config" / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir(parents=True, exist_ok=True)
    plugin.write_text(COMPOSE)
    plugin.chmod(0o755)
    before = built.engine.docker("network", "ls", "-q")
    done = built.run("docker compose run --rm x; docker network ls")
    plugin.unlink()
    assert done.code == 0, done.err
    assert f"cvl-{built.run_id}_default".encode() in done.out
    assert built.engine.docker("network", "ls", "-q") == before


# --- results


@pytest.fixture
def nobody(engine: Engine) -> Iterator[Sshd]:
    """A host whose user is not root, and may use the engine."""
    with tempfile.TemporaryDirectory(prefix="cvl-nobody-") as folder:
        place = Path(folder)
        place.chmod(0o711)
        engine.folder.chmod(0o711)
        (engine.folder / "docker.sock").chmod(0o666)
        home = place / "home"
        home.mkdir(mode=0o700)
        os.chown(home, 65534, 65534)
        become = "setpriv --reuid 65534 --regid 65534 --clear-groups sh"
        with Sshd(place / "host", home=home, shell=become, env=engine.env) as host:
            (place / "host").chmod(0o711)
            (place / "host" / "login").chmod(0o644)
            yield host


def test_what_a_container_wrote_as_root_comes_back_and_goes(
    engine: Engine, nobody: Sshd, tmp_path: Path
) -> None:
    mine = box(tmp_path, engine, nobody.env)
    script = (
        f'id -u; {IN_A_BOX} sh -c "umask 077; mkdir -p out/deep; echo secret >out/deep/f; '
        'echo x >closed; mkdir empty; chmod 0 empty closed"; '
        'docker run --rm -v "$CVL_WORK_DIR:/w" "$IMG" sh -c "umask 077; echo w >/w/work.txt"; '
        "exit 7"
    )
    done = mine.run(script)
    assert done.code == 7, done.err
    assert b"\n65534\n" in done.out
    assert mine.result("f") == b"secret\n"
    assert mine.result("closed") == b"x\n"
    assert mine.result("work.txt") == b"w\n"
    assert runs_of(nobody) == {mine.run_id: ["meta.json", "result"]}, done.err
    assert "still" not in done.err


def test_what_could_not_be_brought_is_not_removed(
    engine: Engine, nobody: Sshd, tmp_path: Path
) -> None:
    mine = box(tmp_path, engine, nobody.env)
    mine.write("example.yaml", "name: boxed\ndocker: false\npresets: {sh: sh.sh}\n")
    links = "for n in 1 2 3 4 5 6; do ln -s /etc/passwd a$n; done"
    script = f"echo 1 >open; {links}; echo up; until [ -e go ]; do sleep 0.05; done"
    with mine.running(script) as client:
        client.shows(b"up")
        place = nobody.home / ".cvl" / "jobs" / mine.run_id / "ws" / FOLDER
        (place / "closed").write_text("by root")
        (place / "closed").chmod(0o600)
        (place / "go").touch()
        done = client.ended()
    assert done.code == 0
    assert mine.result("open") == b"1\n"
    assert "left there: 'closed': may not be read there" in done.err
    assert "not brought: 'a4': link leads out of the results: '/etc/passwd'" in done.err
    assert "not brought: 2 more" in done.err
    assert f"the workspace of {mine.run_id} is still on testhost: a file could not" in done.err
    (place / "closed").chmod(0o644)
    assert mine.desk.cvl("fetch", mine.run_id).code == 0
    assert mine.result("closed") == b"by root"


def test_keep_leaves_the_workspace(built: Box, docker_host: Sshd) -> None:
    done = built.run("echo a >result.txt", "--keep")
    assert done.code == 0
    assert built.result("result.txt") == b"a\n"
    assert "job.sh" in runs_of(docker_host)[built.run_id]
    assert (docker_host.home / ".cvl" / "jobs" / built.run_id / "ws").exists()
    built.run("true")
    assert runs_of(docker_host)[built.run_id] == ["meta.json", "result"]
    assert not (docker_host.home / ".cvl" / "jobs" / built.run_id).exists()


def test_results_can_stay_and_be_fetched_later(
    built: Box, docker_host: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in built.desk.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(built.desk.repo)
    told: list[str] = []
    status = DockerContextRunner().run(
        "boxed",
        "sh",
        ["echo a >result.txt"],
        host="testhost",
        sync_outputs=False,
        on_event=lambda name, text: told.append(f"{name}: {text}"),
    )
    assert (status, status.cause) == (0, Cause.EXITED)
    place = f"~/.cvl/jobs/{status.run_id}"
    assert f"left: results in {place} on testhost; `cvl fetch {status.run_id}` gets them" in told
    there = docker_host.home / ".cvl" / "jobs" / status.run_id
    assert [path.read_text() for path in there.rglob("result.txt")] == ["a\n"]
    assert built.desk.cvl("fetch", status.run_id).code == 0
    assert built.result("result.txt") == b"a\n"


def test_large_results_survive_a_cut(engine: Engine, docker_host: Sshd, tmp_path: Path) -> None:
    with Cable((docker_host.address, docker_host.port)) as cable:
        mine = box(tmp_path / "desk", engine, through(cable, docker_host, tmp_path))
        engine.docker("tag", engine.image, mine.image)
        cable.rate = 20_000_000
        landing = mine.desk.repo / "cvl-runs"
        with mine.running("head -c 60000000 /dev/zero >big; echo s >small") as client:
            wait_for(lambda: sum(f.stat().st_size for f in landing.rglob("*.*")) > 10**7)
            cable.reset()
            cable.rate = 0
            done = client.ended()
        assert done.code == 0, done.err
        assert cable.passed < 90_000_000
    assert mine.result("big") == bytes(60_000_000)
    assert mine.result("small") == b"s\n"


def through(cable: Cable, host: Sshd, folder: Path) -> dict[str, str]:
    """Return the environment of a client that reaches the host through the cable."""
    known, config = folder / "known_hosts", folder / "ssh_config"
    known.write_text(host.host_line(cable.port))
    text = host.ssh_config.read_text().replace(f"Port {host.port}", f"Port {cable.port}")
    config.write_text(text.replace(str(host.known_hosts), str(known)))
    return {**host.env, "CVL_SSH_CONFIG": str(config)}


# --- runs beside each other


def test_runs_of_one_example_do_not_touch_each_other(built: Box, docker_host: Sshd) -> None:
    """Each sees the files as they were when it was started, and only its own results."""
    built.write("given.txt", "0")
    wait = 'until [ -e "$HOME/go" ]; do sleep 0.05; done'
    script = built.script(
        f"{wait}; cat given.txt; cp given.txt mine.txt; rm given.txt; echo >added"
    )
    clients = []
    for number in range(4):
        built.write("given.txt", f"{number}\n")
        client = built.desk.start("run", *built.desk.options, "-d", "boxed", "sh", script)
        clients.append(client.ended().out.decode().strip())
    built.write("given.txt", "changed since\n")
    (docker_host.home / "go").touch()
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda run: built.desk.cvl("attach", run), clients))
    (docker_host.home / "go").unlink()
    assert [end.out for end in ends] == [b"0\n", b"1\n", b"2\n", b"3\n"]
    for number, run in enumerate(clients):
        assert built.desk.result("mine.txt", run) == b"%d\n" % number


def test_runs_started_at_once_share_the_cache(built: Box) -> None:
    def one_run(number: int) -> tuple[int, bytes]:
        done = built.run("cksum * | cksum", "-o", f"out-{number}")
        return done.code, done.out

    for number in range(300):
        built.write(f"data/{number}", str(number))
    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(one_run, range(6)))
    assert len(set(ends)) == 1
    assert ends[0][0] == 0


@pytest.mark.parametrize("name", ["a b", "it's", 'q"uo', "$HOME", "ü", "-x"])
def test_remote_workdir_may_be_called_anything(
    engine: Engine, docker_host: Sshd, tmp_path: Path, name: str
) -> None:
    base = tmp_path / "there" / name
    mine = box(tmp_path / "desk", engine, docker_host.env, "--remote-workdir", str(base))
    engine.docker("tag", engine.image, mine.image)
    done = mine.run(f"{IN_A_BOX} sh -c 'echo here >result.txt'; docker run -d \"$IMG\" sleep 1000")
    assert done.code == 0, done.err
    assert mine.result("result.txt") == b"here\n"
    assert runs_of(docker_host, base) == {mine.run_id: ["meta.json", "result"]}
    assert engine.containers() == []


def test_remote_workdir_may_lie_below_the_home_there(
    engine: Engine, docker_host: Sshd, tmp_path: Path
) -> None:
    mine = box(tmp_path, engine, docker_host.env, "--remote-workdir", "~/on another/disk")
    engine.docker("tag", engine.image, mine.image)
    done = mine.run("pwd; head -c 17000000 /dev/zero >large")
    base = docker_host.home / "on another" / "disk"
    assert done.out.startswith(os.fsencode(base))
    assert len(mine.result("large")) == 17_000_000
    assert runs_of(docker_host, base) == {mine.run_id: ["meta.json", "result"]}


# --- files


def test_inputs_are_sent_along_and_do_not_come_back(built: Box, tmp_path: Path) -> None:
    (built.desk.repo / "near").mkdir()
    (built.desk.repo / "near" / "x y.jpg").write_text("near")
    (tmp_path / "far.jpg").write_text("far")
    script = (
        'cd "$CVL_WORK_DIR"; docker run --rm -v "$PWD:/w" -w /w "$IMG" cat "$2"; '
        'cat "$2" >made.txt; echo; echo "$@"'
    )
    for given, seen in (("near/x y.jpg", "near"), (str(tmp_path / "far.jpg"), "far")):
        done = built.run(script, args=("--image", given, "--output", "made.txt"))
        assert done.code == 0, done.err
        assert done.out.splitlines()[0] == seen.encode()
        landed = built.desk.repo / "cvl-runs" / built.run_id
        assert [path.name for path in landed.rglob("*") if path.is_file()] == ["made.txt"]
        assert built.result("made.txt") == seen.encode()


def test_files_arrive_as_they_are(built: Box, tmp_path: Path) -> None:
    odd = ["a b", "new\nline", "ü\udcff", "-rf", "$(id)", "'", '"', "*", "back\\slash"]
    for name in odd:
        (built.example / name).write_text("x")
    built.write("tool.sh", "#!/bin/sh\necho run\n")
    (built.example / "dangling").symlink_to("nowhere/at all")
    (built.example / "link").symlink_to("tool.sh")
    (built.example / "hollow").mkdir()
    module = built.example / "module"
    module.mkdir()
    (module / "code.py").write_text("1")
    for folder in (module, built.desk.repo):
        for words in (("init", "-q"), ("add", "-A", "."), COMMIT):
            subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    done = built.run(
        "find . -print0 | sort -z | base64 -w0; echo; ./tool.sh; ./link; readlink dangling; "
        "cat module/code.py; stat -c %a tool.sh sh.sh example.yaml"
    )
    names, *rest = done.out.split(b"\n")
    seen = set(base64.b64decode(names).split(b"\0"))
    assert {b"./" + os.fsencode(name) for name in odd} <= seen
    assert rest == [b"run", b"run", b"nowhere/at all", b"1755", b"755", b"644", b""]


COMMIT = ("-c", "user.name=n", "-c", "user.email=e@x", "commit", "-q", "-m", "all")
