"""The set-up: scripts/setup with real shells and made-up machines, the extras, and the demo."""

import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not (ROOT / "scripts/setup").is_file(), reason="needs the source tree"
)

PYTHON = """
case $* in
    *version_info\\ *) exit 0 ;;
    *ensurepip*) exit {venv} ;;
    *-venv*) echo python3.11-venv ;;
    --version) echo Python 3.11.2 ;;
    *sys.executable*) echo 3.11 /usr/bin/python3 ;;
    "-m venv .venv") mkdir -p .venv/bin; ln -sf "$0" .venv/bin/python; echo "venv" >>log ;;
    *install*) echo "pip ${{*##* -e }}" >>log ;;
    *) exit 9 ;;
esac
"""


class Box:
    """A machine with nothing but what a test puts on its PATH, and a copy of the set-up."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder / "checkout", folder / "bin"
        (self.folder / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "scripts/setup", self.folder / "scripts/setup")
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        for name in ("cat", "cksum", "dirname", "env", "id", "ln", "mkdir", "rm", "touch"):
            (self.bin / name).symlink_to(f"/usr/bin/{name}")
        self.add("python3", PYTHON.format(venv=0))
        self.add("id", "echo 1000")

    def add(self, name: str, text: str = "exit 0") -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)

    def setup(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        # The script adds the system's own folders to its PATH: here they are not to be seen.
        script = (self.folder / "scripts/setup").read_text()
        hidden = script.replace(":/usr/local/sbin:/usr/sbin:/sbin", "")
        assert hidden != script
        (self.folder / "scripts/setup").write_text(hidden)
        done = subprocess.run(
            ["/bin/sh", "scripts/setup", *argv],
            cwd=self.folder,
            env={"PATH": str(self.bin), **env},
            capture_output=True,
            text=True,
            check=False,
        )
        (self.folder / "scripts/setup").write_text(script)
        return done

    def log(self) -> list[str]:
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


DEMO = ("sshd", "ssh")
SHELLS = ("fish", "tcsh")
TOOLS = (
    "busybox",
    "rsync",
    "git",
    "ps",
    "ip",
    "docker-registry",
    "localedef",
    "htpasswd",
    "dockerd",
)
ALL = (*DEMO, *SHELLS, *TOOLS)


def test_the_second_time_there_is_nothing_to_do(box: Box) -> None:
    for name in DEMO:
        box.add(name)
    assert box.setup("demo").returncode == 0
    assert box.log() == ["venv", "pip ."]
    assert box.setup("demo").returncode == 0
    assert box.log() == []


def test_the_tests_add_their_own_to_what_the_demo_made(box: Box) -> None:
    for name in ALL:
        box.add(name)
    box.setup("demo")
    box.log()
    assert box.setup("test").returncode == 0
    assert box.log() == ["pip .[dev]"]
    for what in ("demo", "test", "lint"):
        box.setup(what)
    assert box.log() == []


def test_another_pyproject_makes_another_environment(box: Box) -> None:
    for name in ALL:
        box.add(name)
    box.setup("test")
    box.log()
    (box.folder / "pyproject.toml").write_text("[project]\n")
    box.setup("demo")
    assert box.log() == ["venv", "pip ."]
    box.setup("test")
    assert box.log() == ["pip .[dev]"]


def test_an_installation_that_failed_is_tried_again(box: Box) -> None:
    box.add("python3", PYTHON.format(venv=0).replace("*install*)", "*install*) exit 1;; never)"))
    assert box.setup("lint").returncode == 1
    box.add("python3", PYTHON.format(venv=0))
    assert box.setup("lint").returncode == 0
    assert "pip .[dev]" in box.log()


def test_who_cannot_install_is_told_exactly_what_to_run(box: Box) -> None:
    box.add("ssh")
    done = box.setup("demo")
    assert done.returncode == 1
    assert "    sudo apt-get install openssh-server\n" in done.stderr
    assert box.log() == []


def test_tests_go_on_without_what_cannot_be_installed_but_not_in_ci(box: Box) -> None:
    for name in ALL[:-2]:
        box.add(name)
    done = box.setup("test")
    assert done.returncode == 0
    assert "sudo apt-get install apache2-utils docker.io\n" in done.stderr
    assert "skipped" in done.stderr
    assert box.setup("test", CI="true").returncode == 1


def test_a_docker_engine_that_answers_will_do(box: Box) -> None:
    for name in ALL[:-1]:
        box.add(name)
    box.add("docker")
    done = box.setup("test", CI="true")
    assert (done.returncode, "docker.io" in done.stderr) == (0, False)


@pytest.mark.parametrize("way", ["root", "sudo"])
def test_missing_programs_are_installed_by_root_and_by_sudo(box: Box, way: str) -> None:
    box.add("ssh")
    tools = "echo > $BIN/sshd; chmod +x $BIN/sshd"
    chmod = shutil.which("chmod")
    (box.bin / "chmod").symlink_to(str(chmod))
    apt = f'echo "apt $DEBIAN_FRONTEND $*" >>log; case $* in *install*) {tools};; esac'
    box.add("apt-get", apt)
    if way == "root":
        box.add("id", "echo 0")
    else:
        box.add("sudo", '[ "$*" = "-n true" ] || { echo sudo >>log; shift; exec "$@"; }')
    done = box.setup("demo", BIN=str(box.bin))
    assert done.returncode == 0
    assert "Installing Debian packages: openssh-server\n" in done.stderr
    log = box.log()
    assert ("sudo" in log) == (way == "sudo")
    apt_calls = [line for line in log if line.startswith("apt")]
    assert len(apt_calls) == 1, "apt-get update only when needed"
    assert apt_calls[0].startswith("apt noninteractive")
    assert apt_calls[0].endswith("--no-install-recommends install openssh-server")


def test_an_old_list_of_packages_is_updated(box: Box) -> None:
    box.add("ssh")
    box.add("id", "echo 0")
    box.add(
        "apt-get",
        'echo "${*##*recommends }" >>log; case $* in *update) : >up;; *) [ -e up ];; esac',
    )
    assert box.setup("demo").returncode == 0
    assert box.log()[:3] == ["install openssh-server", "update", "install openssh-server"]


def test_a_python_without_venv_needs_its_package(box: Box) -> None:
    box.add("python3", PYTHON.format(venv=1))
    done = box.setup("lint")
    assert done.returncode == 1
    assert "sudo apt-get install python3.11-venv\n" in done.stderr


def test_a_newer_python_beside_an_old_one_is_found(box: Box) -> None:
    for name in DEMO:
        box.add(name)
    box.add("python3", "exit 1")
    box.add("python3.12", PYTHON.format(venv=0))
    assert box.setup("demo").returncode == 0


def test_no_python_that_will_do_is_said(box: Box) -> None:
    box.add("python3", "[ $1 != --version ] || { echo Python 3.9.2; exit; }; exit 1")
    done = box.setup("demo")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed; here is Python 3.9.2." in done.stderr


def test_an_unknown_purpose_is_refused(box: Box) -> None:
    assert box.setup("dance").returncode == 2


def test_every_extra_is_part_of_all() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras["all"] == [f"cvl[{','.join(set_apart(extras))}]"]


def set_apart(extras: dict[str, list[str]]) -> list[str]:
    return [name for name in extras if name not in {"all", "dev", "testing"}]


# --- the demo -----------------------------------------------------------------------------------


@pytest.fixture
def demo(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """The demo under way, its example replaced by one that needs no packages and takes a while."""
    folder = tmp_path / "examples/digits"
    folder.mkdir(parents=True)
    (folder / "example.yaml").write_text("name: digits\npresets: {train: {script: train.sh}}\n")
    (folder / "train.sh").write_text("#!/bin/sh\necho epoch 1\nexec sleep 60\n")
    (folder / "train.sh").chmod(0o755)
    # PIP_…: what pip is told here is told to the sessions on the demo's machine, too
    env = {**os.environ, "CVL_ROOT": str(tmp_path), "PIP_CVL_TEST": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cvl.testing.demo"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process
        process.kill()


def marked(value: str) -> list[str]:
    """Return the command of each process that carries `value` in its environment."""
    return [command(folder) for folder in processes() if value in read(folder / "environ")]


def titled(value: str) -> list[str]:
    """Return the command of each process that names `value` in it: a kept ssh hides the rest."""
    return [line for folder in processes() if value in (line := command(folder))]


def runtime_folder(pid: int) -> str:
    """Return where the commands that a process has started keep their connections."""
    children = read(Path(f"/proc/{pid}/task/{pid}/children")).split()
    names = (read(Path(f"/proc/{child}/environ")).split("\0") for child in children)
    found = [word for words in names for word in words if word.startswith("XDG_RUNTIME_DIR=")]
    return found[-1].partition("=")[2]


def processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*")


def command(folder: Path) -> str:
    return read(folder / "cmdline").replace("\0", " ")


def read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_stopped_leaves_nothing_running(
    demo: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals, code: int
) -> None:
    assert demo.stdout is not None
    said = []
    for line in demo.stdout:
        said.append(line)
        if line == "epoch 1\n":
            break
    else:
        pytest.fail("".join(said))
    sockets = runtime_folder(demo.pid)
    commands = " ".join([*marked(str(tmp_path)), *titled(sockets)])
    assert all(word in commands for word in ("cvl run", "sleep 60", "[mux]")), commands
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode == code
    deadline = time.monotonic() + 10
    while (left := [*marked(str(tmp_path)), *titled(sockets)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
