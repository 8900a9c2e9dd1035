"""The zipapp, and putting it on a machine: by real shells, a real Python and a real sshd."""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

import cvl
from cvl.core.errors import CvlError, NotReady
from cvl.core.interfaces import Process
from cvl.host import install as bundles
from cvl.host.request import SCRIPT
from cvl.host.rpc import FarSide
from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd

STARTED: list[subprocess.Popen[bytes]] = []


class Here:
    """A transport to this machine, with an environment of its own, behind `prefix`."""

    where = "testhost"

    def __init__(self, env: Mapping[str, str] | None = None, *prefix: str) -> None:
        self.env, self.prefix = {**os.environ, **(env or {})}, prefix

    def start(self, argv: Sequence[str]) -> Process:
        command = [*self.prefix, shlex.join(argv)] if self.prefix else list(argv)
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=self.env)
        STARTED.append(process)
        return cast("Process", process)

    def failure(self, *_: object) -> Exception | None:
        return None

    def pull(self, *_: object) -> None:
        raise AssertionError("nothing is fetched here")


@pytest.fixture(autouse=True)
def _pipes() -> Iterator[None]:
    """Close what was opened, and see that it has ended by itself."""
    yield
    for process in STARTED:
        process.wait(10)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
    STARTED.clear()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own, so that its files may be changed."""
    folder = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("tests", "__pycache__", "_shipped")
    shutil.copytree(Path(cvl.__file__).parent, folder / "cvl", ignore=ignore)
    return folder


ASK = """
import json
from cvl.host.install import bundle

made = bundle()
print(json.dumps([made.hash, str(made.path)]))
"""


def ask(path: Path) -> list[str]:
    """Return hash and path of the bundle that the cvl in `path` makes of itself."""
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    answer: list[str] = json.loads(done.stdout)
    return answer


def bare(*argv: str | Path) -> str:
    """Run a Python that has nothing installed."""
    command = [sys.executable, "-I", "-S", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


def test_it_runs_on_a_bare_python() -> None:
    assert cvl.__version__ in bare(bundles.bundle().path, "--version")


def test_what_it_needs_is_in_it() -> None:
    names = zipfile.ZipFile(bundles.bundle().path).namelist()
    assert names == sorted(set(names))
    assert {
        "cvl/host/shell/supervisor.sh",
        "cvl/host/shell/setup.sh",
        "cvl/cli/__init__.py",
    } <= set(names)
    assert not [name for name in names if "cvl/test" in name or name.endswith((".pyc", ".so"))]
    for distribution in ("click", "pathspec", "rich", "pyyaml"):
        assert any(name.startswith(distribution) and "LICENSE" in name for name in names)


@pytest.mark.parametrize(
    "code",
    ["import yaml; yaml.safe_load('a: [1]')", "import click", "import rich.status, rich.table"],
)
def test_its_libraries_work_without_what_was_left_out(code: str) -> None:
    bare("-c", f"import sys; sys.path.insert(0, {str(bundles.bundle().path)!r})\n{code}")


EVERY_MODULE = """
import sys
import zipfile
from importlib import import_module

sys.path.insert(0, sys.argv[1])
names = [name for name in zipfile.ZipFile(sys.argv[1]).namelist() if name.endswith(".py")]
ours = [name for name in names if name.startswith("cvl/") and "__main__" not in name]
for name in ours:
    import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
print(len(ours))
"""


def test_every_module_of_it_loads_on_a_bare_python() -> None:
    assert int(bare("-c", EVERY_MODULE, bundles.bundle().path)) > 150


def test_it_calls_other_hosts_and_reads_what_is_to_stay_here(host: Sshd, tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=(), env=host.env)
    (desk.repo / ".cvlignore").write_text("*.tmp\n!kept.tmp\n/sub/**/x\n")
    for name in ("gone.tmp", "kept.tmp"):
        (desk.repo / "examples/conformance/one" / name).write_text(name)
    words = ("run", "--ssh", "testhost", "one", "sh", "ls *.tmp")
    done = subprocess.run(
        [sys.executable, "-I", "-S", bundles.bundle().path, *words],
        env=desk.environment,
        cwd=desk.repo,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "kept.tmp\n"), done


def test_the_same_files_give_the_same_bytes(checkout: Path, cache: Path) -> None:
    first, path = ask(checkout)
    for file in checkout.rglob("*.py"):
        os.utime(file, (1, 1))
    shutil.rmtree(cache)
    second, other = ask(checkout)
    assert first == second
    assert path != other, "found by times, so it was made again"


def test_it_is_made_once(checkout: Path) -> None:
    made = Path(ask(checkout)[1])
    before = made.stat()
    assert Path(ask(checkout)[1]) == made
    assert made.stat() == before


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_any_change_of_a_checkout_makes_another(checkout: Path, change: str) -> None:
    before, _ = ask(checkout)
    if change == "edit":
        with (checkout / "cvl/core/units.py").open("a") as file:
            file.write("# changed\n")
    elif change == "add":
        (checkout / "cvl/runners/more.py").write_text("")
    else:
        (checkout / "cvl/host/job.py").unlink()
    assert ask(checkout)[0] != before


def test_an_editors_lock_file_is_not_in_the_way(checkout: Path) -> None:
    before, _ = ask(checkout)
    (checkout / "cvl/.#units.py").symlink_to("nobody@nowhere:1")
    assert ask(checkout)[0] == before


def test_from_a_zipapp_it_is_that_very_file() -> None:
    made = bundles.bundle()
    code = f"import sys; sys.path.insert(0, {str(made.path)!r})\n{ASK}"
    assert json.loads(bare("-c", code)) == [made.hash, str(made.path)]


def test_only_the_user_can_read_it(cache: Path) -> None:
    path = bundles.bundle().path
    assert stat.S_IMODE(cache.stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o700
    assert subprocess.run([path, "--version"], capture_output=True, check=True).stdout


def test_bundles_of_days_ago_are_removed(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    old, fresh = cache / "0-0.pyz", cache / "1-1.pyz"
    old.touch()
    fresh.touch()
    os.utime(old, (1, 1))
    bundles.bundle()
    assert not old.exists()
    assert fresh.exists()


def test_a_cache_that_cannot_be_written_is_an_error(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(CvlError, match="cannot write") as raised:
        bundles.bundle()
    assert "CVL_CACHE_DIR" in raised.value.hint


# --- on a machine -------------------------------------------------------------------------------


def version_of(base: Path) -> str:
    command = [str(base / "bin/cvl"), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def leftovers(base: Path) -> list[str]:
    return [path.name for path in [*(base / "lib").iterdir(), *(base / "bin").iterdir()]]


def test_it_is_put_on_a_machine_and_runs_there(tmp_path: Path) -> None:
    base = tmp_path / "it's a base"
    bundles.install(FarSide(Here(), str(base)))
    assert cvl.__version__ in version_of(base)
    assert leftovers(base) == [bundles.bundle().hash, "cvl"]


def test_without_a_base_it_goes_into_the_home_folder(tmp_path: Path) -> None:
    bundles.install(FarSide(Here({"HOME": str(tmp_path)})))
    assert cvl.__version__ in version_of(tmp_path / ".cvl")


def test_over_a_real_connection(tmp_path: Path) -> None:
    if not shutil.which("ssh"):
        pytest.skip("ssh is not installed: apt install openssh-client")
    with Sshd(tmp_path / "sshd", noise="welcome\n") as sshd:
        prefix = ("ssh", "-F", str(sshd.ssh_config), sshd.name)
        bundles.install(FarSide(Here(None, *prefix)))
        assert cvl.__version__ in version_of(sshd.home / ".cvl")


def test_twice_and_at_the_same_time(tmp_path: Path) -> None:
    bundles.bundle()
    failures: list[BaseException] = []

    def install() -> None:
        try:
            bundles.install(FarSide(Here(), str(tmp_path / "base")))
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=install) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cvl.__version__ in version_of(tmp_path / "base")
    assert leftovers(tmp_path / "base") == [bundles.bundle().hash, "cvl"]


def test_what_a_killed_one_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, fresh = tmp_path / "lib/.abc.123", tmp_path / "lib/.abc.456"
    for folder in (old, fresh):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    bundles.install(FarSide(Here(), str(tmp_path)))
    assert not old.exists()
    assert fresh.exists()


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with busybox's tools and, so far, no Python."""
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("busybox is not installed: apt install busybox")
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "cat", "dd", "find", "mkdir", "rm"):
        (folder / name).symlink_to(busybox)
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)


def test_busybox_will_do(tmp_path: Path, tools: Path) -> None:
    (tools / "python3").symlink_to(sys.executable)
    bundles.install(FarSide(Here({"PATH": str(tools)}), str(tmp_path / "base")))
    assert cvl.__version__ in version_of(tmp_path / "base")


def test_a_shim_that_runs_nothing_and_an_old_python_are_passed_over(
    tmp_path: Path, tools: Path
) -> None:
    script(tools / "python3", "echo 'old 3.9.2 /usr/bin/python3'")
    script(tools / "python3.11", "echo 'version 3.11 is not installed' >&2; exit 127")
    script(tools / "python3.12", f'exec {sys.executable} "$@"')
    bundles.install(FarSide(Here({"PATH": str(tools)}), str(tmp_path / "base")))
    assert str(tools) not in (tmp_path / "base/bin/cvl").read_text()


@pytest.mark.parametrize(
    ("python", "code", "message"),
    [
        ("echo 'old 3.9.2 /usr/bin/python3'", 76, "but python3 is 3.9.2"),
        ("exit 127", 77, "there is no python3 on the PATH"),
        ("case $* in *-c*) echo ok 3.11.2 $0;; *) echo no zlib >&2; exit 1; esac", 1, "no zlib"),
        ('case $* in *--version) echo cvl 0.0;; *) exec PYTHON "$@"; esac', 1, "what was sent is"),
    ],
)
def test_a_python_that_will_not_do_is_told_in_the_hosts_words(
    tmp_path: Path, tools: Path, python: str, code: int, message: str
) -> None:
    real = python.replace("PYTHON", sys.executable)
    if "PYTHON" in python:
        real = f"case $* in *-c*) echo ok 3.11.2 $0; exit;; esac; {real}"
    script(tools / "python3", real)
    here = Here({"PATH": str(tools)})
    with pytest.raises(NotReady) as raised:
        bundles.install(FarSide(here, str(tmp_path / "base")))
    assert message in str(raised.value)
    assert "--docker HOST" in raised.value.hint
    assert not list(tmp_path.glob("base/lib/*"))
    assert not list(tmp_path.glob("base/lib/.*"))
    assert exit_code(here, tmp_path) == code


def exit_code(here: Here, tmp_path: Path) -> int:
    text = (Path(bundles.__file__).parent / "shell/setup.sh").read_bytes()
    text = f"hash=0123 version={cvl.__version__} minimum=3.11\n".encode() + text
    words = f"cvl n {len(text)} {tmp_path}/base\n".encode() + text
    payload = words + bundles.bundle().path.read_bytes()
    done = subprocess.run(SCRIPT, input=payload, env=here.env, capture_output=True, check=False)
    return done.returncode


def test_a_folder_that_cannot_be_made_is_told_in_the_hosts_words(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("a file")
    with pytest.raises(NotReady, match=r"cannot write to .*base: mkdir: "):
        bundles.install(FarSide(Here(), str(tmp_path / "base")))
