"""Known holes: of the libraries that we ask for, and of the programs that we run."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from cvl.operations import vulnerabilities
from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
MENDED = {
    "click": (8, 3, 3),
    "pathspec": (0, 12),
    "pyyaml": (5, 4),
    "rich": (13,),
    "urllib3": (2, 8),
    "boto3": (1, 36),
    "websockets": (10,),
}
"""The first version of each library without a known hole, or the oldest that takes the others'."""


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@pytest.mark.skipif(not PROJECT.exists(), reason="needs the source tree")
def test_no_floor_allows_a_version_with_a_known_hole() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(extras[name] for name in ("remote", "aws", "k8s"))]
    flat = [line for each in asked for line in ([each] if isinstance(each, str) else each)]
    for line in flat:
        found = re.fullmatch(r"([A-Za-z0-9]+)>=([0-9.]+)", line)
        assert found, line
        assert numbers(found[2]) >= MENDED[found[1].lower()], line


@pytest.mark.skipif(not PROJECT.exists(), reason="needs the source tree")
def test_why_each_floor_is_there_is_written_down() -> None:
    page = (PROJECT.parent / "docs/decisions/dependencies.md").read_text()
    project = tomllib.loads(PROJECT.read_text())["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["remote"]]:
        assert f"`{line}`" in page, line


@pytest.mark.parametrize(
    ("program", "said", "version", "known", "mended"),
    [
        (
            "ssh",
            "OpenSSH_9.2p1 Debian-2+deb12u10",
            "9.2p1",
            "CVE-2023-48795",
            "2024-6387",
        ),
        ("ssh", "OpenSSH_10.4p1, OpenSSL 3.5", "10.4p1", "", "CVE"),
        ("sshd", "OpenSSH_8.4p1, OpenSSL", "8.4p1", "CVE-2023-48795", "CVE-2024-6387"),
        ("sshd", "OpenSSH_8.5p1", "8.5p1", "CVE-2024-6387", "CVE-2025-26466"),
        ("sshd", "OpenSSH_9.7p1", "9.7p1", "CVE-2024-6387", "CVE-2023-48795"),
        ("sshd", "OpenSSH_9.9p1", "9.9p1", "CVE-2025-26466", "CVE-2024-6387"),
        ("sshd", "OpenSSH_9.9p2", "9.9p2", "", "CVE"),
        ("ssh", "dropbear v2022.83", "", "", "CVE"),
        ("ssh", "", "", "", "CVE"),
    ],
)
def test_a_version_has_its_holes(
    program: str, said: str, version: str, known: str, mended: str
) -> None:
    assert vulnerabilities.version(said) == version
    found = vulnerabilities.holes(program, version)
    assert known in found
    assert bool(found) == bool(known)
    assert not mended or mended not in found


def test_doctor_says_holes_here_and_there_and_is_content(host: Sshd, tmp_path: Path) -> None:
    """A note: distributions mend them without a new number, so nothing is missing."""
    desk = Desk(folder=tmp_path, options=("--local",), env=host.env)
    tools = tmp_path / "tools"
    tools.mkdir()
    file, real = tools / "ssh", 'exec /usr/bin/ssh "$@"'
    answer = "OpenSSH_9.9p1, OpenSSL 3.5"
    file.write_text(f'#!/bin/sh\ncase $1 in -V) echo "{answer}";; *) {real};; esac\n')
    file.chmod(0o755)
    path = f"{tools}:/usr/local/bin:/usr/bin:/bin"
    assert desk.cvl("doctor", env={"PATH": path}).code == 0
    text = desk.cvl("doctor", "--host", "testhost", env={"PATH": path}).out.decode()
    assert "FAILED  ssh version" not in text
    assert "-       ssh version: 9.9p1: CVE-2025-26465" in text
    assert "see that your distribution has mended these" in text
    there = vulnerabilities.version(
        subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    )
    assert (f"ssh version there: {there}" in text) == bool(vulnerabilities.holes("sshd", there))
    file.write_text("#!/bin/sh\nsleep 30\n")
    assert "ssh version" not in desk.cvl("doctor", env={"PATH": path}).out.decode()
