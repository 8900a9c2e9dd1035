"""Docker on the far side: the shim, what is checked before, containers at the end, root's files."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing.docker_engine import Engine
from cvl.tests import farside
from cvl.tests.boxes import slowness
from cvl.tests.farside import LIB, Host, wait_for
from cvl.tests.test_supervisor_files import as_nobody, changed

REAL_DOCKER = shutil.which("docker") or ""
numbers = itertools.count()


@pytest.fixture(params=farside.SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.fixture(params=("dash", "busybox"))
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.fixture
def docker_host(either: Host, engine: Engine) -> Host:
    """Return a host with a docker that reaches the engine."""
    tool = Path(either.sh).parent / "docker"
    tool.symlink_to(REAL_DOCKER)
    return Host(base=either.base, env={**either.env, **engine.env}, sh=either.sh)


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    yield shared_engine
    shared_engine.clear()


@pytest.fixture
def run_id() -> str:
    return f"t{os.getpid()}-{next(numbers)}"


def pretend_docker(host: Host, body: str) -> None:
    """Put a `docker` on the host's PATH that is this script."""
    tool = Path(host.sh).parent / "docker"
    tool.unlink(missing_ok=True)
    tool.write_text(f"#!{host.sh}\n{body}\n")
    tool.chmod(0o755)


def without_docker(host: Host, tmp_path: Path) -> Host:
    """Return the host with no `docker` on its PATH: only what the shell files need."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in farside.SYSTEM_PATH.split(":"):
        for tool in Path(folder).iterdir() if Path(folder).exists() else ():
            if "docker" not in tool.name and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    path = host.env["PATH"].split(":")[0]
    if "busybox" not in str(Path(host.sh).readlink()):
        path += f":{tools}"
    return Host(base=host.base, env={**host.env, "PATH": path}, sh=host.sh)


# --- the shim, with a docker that shows its arguments


@pytest.mark.parametrize(
    ("words", "labelled"),
    [
        ("run -it img run", "run --label cvl.run=one -it img run"),
        ("create img", "create --label cvl.run=one img"),
        ("container run img", "container run --label cvl.run=one img"),
        ("container create img", "container create --label cvl.run=one img"),
        ("-H tcp://x run img", "-H tcp://x run --label cvl.run=one img"),
        ("--host=tcp://x run img", "--host=tcp://x run --label cvl.run=one img"),
        ("--context run run img", "--context run run --label cvl.run=one img"),
        ("-D --config c -l debug run i", "-D --config c -l debug run --label cvl.run=one i"),
        ("-DH x run i", "-DH x run --label cvl.run=one i"),
        ("-c y container run i", "-c y container run --label cvl.run=one i"),
        ("build run", "build run"),
        ("ps -a", "ps -a"),
        ("compose run x", "compose run x"),
        ("container ls run", "container ls run"),
        ("image create", "image create"),
        ("", ""),
    ],
)
def test_the_shim_labels_what_is_run(host: Host, words: str, labelled: str) -> None:
    pretend_docker(host, 'for word; do printf "%s " "$word"; done; exit 6')
    reply = host.start("one", f"docker {words}\n", follow=1)
    assert reply.body.decode().split() == labelled.split()
    assert reply.last.startswith("result exited 6 ")


def test_the_shim_hands_on_every_byte(host: Host) -> None:
    pretend_docker(host, 'for word; do printf "%s|" "$word"; done')
    reply = host.start("one", "docker run '' 'a b' '*' '\n' '\"'\\'' $x' '-e'\n", follow=1)
    assert reply.body == b"run|--label|cvl.run=one||a b|*|\n|\"' $x|-e|"


def test_the_shim_does_not_find_itself(host: Host, tmp_path: Path) -> None:
    bare = without_docker(host, tmp_path)
    shutil.copy(LIB / "docker.sh", Path(bare.sh).parent / "shim")
    own = tmp_path / "runs" / "x" / "bin"
    own.mkdir(parents=True)
    (own / "docker").symlink_to(Path(bare.sh).parent / "shim")
    (Path(bare.sh).parent / "shim").chmod(0o755)
    for path in (f"{own}:{bare.env['PATH']}", f"{own}:{own}:{bare.env['PATH']}:{own}"):
        done = subprocess.run(
            [own / "docker", "run", "x"],
            env={**bare.env, "PATH": path},
            capture_output=True,
            timeout=10,
            check=False,
        )
        assert done.returncode == 127
        assert done.stderr == b"docker: not found\n"


def test_one_run_within_another(host: Host) -> None:
    """Both shims are on the PATH; the call passes through the two and ends."""
    pretend_docker(host, 'for word; do printf "%s " "$word"; done')
    outer = host.base / "runs" / "outer" / "bin"
    outer.mkdir(parents=True)
    (outer / "docker").symlink_to(host.base / "lib" / "test" / "docker.sh")
    env = {**host.env, "PATH": f"{outer}:{host.env['PATH']}"}
    nested = Host(base=host.base, env=env, sh=host.sh)
    reply = nested.start("one", "docker run img\n", follow=1)
    assert reply.body == b"run --label cvl.run=outer --label cvl.run=one img "


def test_without_docker_nothing_is_different(host: Host, tmp_path: Path) -> None:
    bare = without_docker(host, tmp_path)
    reply = bare.start("one", "docker run x\n", follow=1)
    assert reply.last.startswith("result exited 127 ")
    assert not (bare.run("one") / "bin" / "docker").exists()


@pytest.mark.parametrize("trouble", ["exit 1", "exec sleep 1000"])
def test_an_engine_that_does_not_answer_at_once_is_asked_again(
    host: Host, tmp_path: Path, trouble: str
) -> None:
    """That it says nothing does not mean that it runs nothing."""
    asked, gone = tmp_path / "asked", tmp_path / "gone"
    pretend_docker(
        host,
        f"""case $1 in
            ps) [ -e {asked} ] || {{ echo >{asked}; {trouble}; }}
                [ -e {gone} ] || echo "c1|any|one|" ;;
            rm) shift 3; echo "$@" >{gone} ;;
        esac""",
    )
    reply = host.start("one", "docker run x\n", follow=1)
    assert reply.last.startswith("result exited 0 ")
    assert gone.read_text() == "c1\n"


# --- what is checked before


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "permission"),
        ("Cannot connect to the Docker daemon at x. Is the docker daemon running?", "not running"),
        ("something else", "something else"),
    ],
)
def test_a_docker_that_cannot_be_used_is_told_before_the_start(
    host: Host, says: str, told: str
) -> None:
    pretend_docker(host, f"echo '{says}' >&2; exit 1")
    reply = host.start("one", "true\n", docker=1)
    assert reply.last.startswith("fail docker ")
    assert told in reply.last
    assert not any((host.base / "new").iterdir())
    assert host.ask("status", id="one").last == "unknown"


def test_a_docker_that_is_not_there_is_told(host: Host, tmp_path: Path) -> None:
    bare = without_docker(host, tmp_path)
    assert bare.start("one", "true\n", docker=1).last == "fail docker Docker is not installed"
    assert bare.start("two", "true\n", follow=1).last == "result exited 0 0"


def test_what_is_short_is_warned_of(host: Host, tmp_path: Path) -> None:
    bare = without_docker(host, tmp_path)
    for folder in bare.env["PATH"].split(":"):
        (Path(folder) / "nvidia-smi").unlink(missing_ok=True)
    reply = bare.start("one", "true\n", follow=1, disk=10**9, gpu=1)
    assert [answer.split()[0] for answer in reply.answers] == ["warn", "warn", "started", "result"]
    assert "asks for 1000000000 GB" in reply.answers[0]
    assert "nvidia-smi" in reply.answers[1]
    assert bare.start("two", "true\n", disk=0.001).answers == ["started"]


MOUNTS = [
    "--mount type=bind,src=$HOME/.cache/torch,dst=/c",
    "--mount=type=bind,source=$HOME/.cache/torch,dst=/c",
    "-v $HOME/.cache/torch:/c",
    "--volume $HOME/.cache/torch:/c:ro",
    "--volume=$HOME/.cache/torch:/c",
]


@pytest.mark.parametrize("mount", MOUNTS)
def test_a_cache_is_made_for_whoever_mounts_it_and_for_nobody_else(host: Host, mount: str) -> None:
    cache = Path(host.env["HOME"]) / ".cache"
    pretend_docker(host, "exit 0")
    host.start("none", "docker run image\ntrue\n", follow=1)
    host.start("in-place", f"docker run {mount} image\n", follow=1, files={"run/inplace": b""})
    assert not cache.exists()
    host.start("one", f"docker run {mount} image\n", follow=1)
    assert [path.name for path in cache.iterdir()] == ["torch"]


# --- real containers


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("ending", ["exit", "stop", "timeout", "killed supervisor"])
def test_no_container_outlives_its_run(
    docker_host: Host, engine: Engine, run_id: str, ending: str
) -> None:
    """Named, unnamed, detached, deaf to TERM: all gone, and a stranger's is left alone."""
    stranger = engine.docker("run", "-d", "--name", f"x-{run_id}", engine.image, "sleep", "1000")
    job = f"""
        docker run -d --rm --name "$CVL_CONTAINER_NAME" {engine.image} sleep 1000
        docker run -d {engine.image} sh -c 'trap "" TERM; while :; do sleep 1; done'
        docker create {engine.image} true
        {REAL_DOCKER} run -d --label com.docker.compose.project=$COMPOSE_PROJECT_NAME \
            {engine.image} sleep 1000
        {"exit 3" if ending == "exit" else f"exec docker run --rm {engine.image} sleep 1000"}
    """
    limit = {"timeout": f"{8 * slowness(engine):.0f}"} if ending == "timeout" else {}
    docker_host.start(run_id, job, None, grace=1, docker=1, **limit)
    count = 4 if ending == "exit" else 5
    wait_for(lambda: docker_host.output(run_id).count(b"\n") >= 4)
    if ending == "stop":
        wait_for(lambda: len(engine.containers()) > count)
        docker_host.ask("stop", id=run_id, grace=1)
    if ending == "killed supervisor":
        wait_for(lambda: len(engine.containers()) > count)
        farside.kill(farside.supervisor(docker_host, run_id))
        wait_for(lambda: docker_host.ask("status", id=run_id).last != "running")
    cause = docker_host.result(run_id, 20 * slowness(engine))[0]
    assert cause == {"exit": "exited", "stop": "stopped", "timeout": "timeout"}.get(ending, "lost")
    assert engine.containers() == [f"x-{run_id}"]
    engine.docker("rm", "-f", stranger)


@pytest.mark.docker
def test_another_engine_in_the_runs_own_variables(host: Host, engine: Engine, run_id: str) -> None:
    pretend_docker(host, f'exec {REAL_DOCKER} "$@"')
    env = "".join(f"export {name}='{value}'\n" for name, value in engine.env.items())
    job = f"docker run -d {engine.image} sleep 1000\n"
    reply = host.start(run_id, job, {"run/env.sh": env.encode()}, follow=1)
    assert reply.last.startswith("result exited 0 ")
    assert engine.containers() == []


@pytest.mark.docker
def test_what_root_left_is_read_and_removed(engine: Engine, open_folder: Path, run_id: str) -> None:
    for shell in ("dash", "busybox"):
        for host in farside.hosted(open_folder / shell, shell):
            tool = Path(host.sh).parent / "docker"
            tool.symlink_to(REAL_DOCKER)
            (engine.folder).chmod(0o711)
            (engine.folder / "docker.sock").chmod(0o666)
            env = {**host.env, "DOCKER_HOST": engine.url}
            mine = as_nobody(Host(base=host.base, env=env, sh=host.sh))
            job = (
                f'docker run --rm -v "$PWD:/w" {engine.image} sh -c '
                '"umask 077; mkdir /w/out; echo 1 >/w/out/f"; echo 2 >mine\n'
            )
            run = f"{run_id}-{shell}"
            mine.start(run, job, {"tree/old": b""}, follow=1, cache="c", tree="t")
            assert changed(mine, run) == {("u", "e", b"out"): b"0", ("f", "e", b"mine"): b"2"}
            found = changed(mine, run, image="not/here:latest")
            assert found == {("f", "e", b"out/f"): b"2", ("f", "e", b"mine"): b"2"}
            tidied = mine.ask("clean", id=run, image="not/here:latest")
            assert tidied.answers == ["result exited 0 0"]
            assert [path.name for path in mine.run(run).iterdir()] == ["result"]
