"""How the scripts of the examples find their packages: Docker, this Python, or an environment."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cvl.tests.scripts import DIGITS, LIMIT, read_until, run, started, succeed


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An example that needs one package, which lies beside it: nothing is downloaded."""
    example = tmp_path / "tiny"
    example.mkdir()
    for name in ("python.sh", "environment.py"):
        shutil.copy(DIGITS / name, example)
    with zipfile.ZipFile(tmp_path / "cvltiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("cvltiny.py", "ANSWER = 42\n")
        info = "cvltiny-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: cvltiny\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    (example / "requirements.txt").write_text("# one\ncvltiny==1.0\n")
    return example


def offline(folder: Path) -> dict[str, str]:
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": os.devnull,
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


ASK = ("-c", "import cvltiny; print(cvltiny.ANSWER)")


def test_packages_are_installed_once_by_whoever_comes_first(tiny: Path, tmp_path: Path) -> None:
    script, env = tiny / "python.sh", offline(tmp_path)
    with (
        started(script, *ASK, cwd=tmp_path, env=env) as one,
        started(script, *ASK, cwd=tmp_path, env=env) as two,
    ):
        outputs = [process.communicate(timeout=LIMIT)[0] for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], outputs
    assert sum("Installing cvltiny==1.0" in output for output in outputs) == 1
    later = run(script, *ASK, cwd=tmp_path, env=env)
    assert (later.stdout, later.stderr) == ("42\n", "")


def test_an_installation_that_was_killed_is_made_again(tiny: Path, tmp_path: Path) -> None:
    script, env = tiny / "python.sh", offline(tmp_path)
    with started(script, *ASK, cwd=tmp_path, env=env) as first:
        read_until(first, "Installing")
        first.kill()  # its installer lives on, and must not be got in the way of
        second = run(script, *ASK, cwd=tmp_path, env=env)
    assert succeed(second) == "42\n"
    assert "Installing" in second.stderr


def test_a_package_that_cannot_be_had_is_an_error_and_leaves_no_ready_environment(
    tiny: Path, tmp_path: Path
) -> None:
    (tiny / "requirements.txt").write_text("cvltiny==2.0\n")
    done = run(tiny / "python.sh", *ASK, cwd=tmp_path, env=offline(tmp_path))
    assert done.returncode == 1
    assert "Could not install the packages" in done.stderr
    assert list((tmp_path / "cache").rglob("ready")) == []


def test_a_python_that_has_the_packages_is_used_as_it_is(tiny: Path, tmp_path: Path) -> None:
    (tiny / "requirements.txt").write_text(f"PyYAML=={yaml.__version__}\n")
    done = run(
        tiny / "python.sh",
        "-c",
        "import sys; print(sys.prefix)",
        cwd=tmp_path,
        env=offline(tmp_path),
    )
    assert (done.stdout, done.stderr) == (f"{sys.prefix}\n", "")
    assert not (tmp_path / "cache").exists()


def test_arguments_and_exit_code_pass_through(tiny: Path, tmp_path: Path) -> None:
    (tiny / "requirements.txt").write_text("")
    args = ["", "two words", "'", '"', "$(id)", "a\nb", "-x", "--", "é", ";"]
    code = "import sys; print(ascii(sys.argv[1:])); sys.exit(77)"
    done = run(tiny / "python.sh", "-c", code, *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (77, ascii(args) + "\n")


@pytest.fixture
def docker_image(tmp_path: Path) -> Iterator[str]:
    """An image whose `python3` tells what it was given: arguments, folder, user, variables."""
    busybox = shutil.which("busybox")
    if busybox is None or shutil.which("docker") is None:
        pytest.skip("needs docker and busybox")
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    context, image = tmp_path / "image", f"cvl-test-{secrets.token_hex(4)}"
    libraries = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False).stdout
    for file in [busybox, *re.findall(r"/\S+", libraries)]:
        (context / "root" / file[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, context / "root" / file[1:])
    python3 = context / "root" / "bin" / "python3"
    python3.parent.mkdir(exist_ok=True)
    python3.write_text(
        '#!/bin/sh\nfor a; do echo "<$a>"; done\npwd\nid -u\necho "$NODE_RANK"\n'
        'case $1 in wait) echo waiting; sleep 600;; /*) echo x >"$2";; esac\n'
    )
    python3.chmod(0o755)
    (context / "Dockerfile").write_text(
        f'FROM scratch\nCOPY root /\nRUN ["{busybox}", "--install", "-s", "/bin"]\n'
    )
    build = ["docker", "build", "--quiet", "--tag", image, str(context)]
    subprocess.run(build, capture_output=True, check=True, timeout=LIMIT)
    yield image
    subprocess.run(["docker", "rmi", "--force", image], capture_output=True, check=True)


@pytest.mark.docker
def test_in_docker_paths_arguments_and_user_are_those_outside(
    tiny: Path, tmp_path: Path, docker_image: str
) -> None:
    work, away = tmp_path / "the work", tmp_path / "away"
    work.mkdir()
    away.mkdir()
    args = [str(tiny / "x.py"), str(work / ".." / "away" / "result"), "", "a b", "$(id)", "é;'"]
    done = run(
        tiny / "python.sh",
        *args,
        cwd=tmp_path,
        env={
            "CVL_NO_DOCKER": "",
            "CVL_IMAGE": docker_image,
            "CVL_WORK_DIR": str(work),
            "NODE_RANK": "3",
        },
    )
    wanted = [*(f"<{arg}>" for arg in args), str(work), str(os.getuid()), "3"]
    assert succeed(done).splitlines() == wanted
    assert (away / "result").stat().st_uid == os.getuid()


@pytest.mark.docker
def test_in_docker_a_signal_ends_the_container(
    tiny: Path, tmp_path: Path, docker_image: str
) -> None:
    name = f"{docker_image}-run"
    with started(
        tiny / "python.sh", "wait", cwd=tmp_path,
        env={"CVL_NO_DOCKER": "", "CVL_IMAGE": docker_image, "CVL_CONTAINER_NAME": name},
    ) as process:  # fmt: skip
        read_until(process, "waiting")
        assert docker_ps(name) == [name]
        process.terminate()
        assert process.wait(timeout=30) == 143
    assert docker_ps(name) == []


@pytest.mark.docker
def test_an_image_that_cannot_be_built_is_said_and_done_without(
    tiny: Path, tmp_path: Path, docker_image: str
) -> None:
    (tiny / "requirements.txt").write_text("")
    (tiny / "build.sh").write_text("#!/bin/sh\necho no way\nexit 1\n")
    (tiny / "build.sh").chmod(0o755)
    done = run(
        tiny / "python.sh",
        "-c",
        "print('here')",
        cwd=tmp_path,
        env={"CVL_NO_DOCKER": "", "CVL_IMAGE": f"{docker_image}-missing"},
    )
    assert succeed(done) == "here\n"
    assert "no way\nThe image could not be built" in done.stderr


def docker_ps(name: str) -> list[str]:
    command = ["docker", "ps", "--filter", f"name={name}", "--format", "{{.Names}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
