"""scripts/kube-build, with a package archive and a compiler made up: what counts as built."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not (ROOT / "scripts/kube-build").is_file(), reason="needs the source tree"
)

SERVERS = {"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"}
APT_GET = """
case " $* " in
*' indextargets '*) echo "deb-src http://archive.invalid/debian bookworm main" ;;
*' source '*) echo 'Version: 1.2.5+really1.20.2-1.1' >kubernetes.dsc ;;
*' download '*) for name; do :; done; : >"${name}_1_all.deb" ;;
esac
"""
DPKG_SOURCE = "echo; mkdir -p src/cmd/kube-apiserver src/vendor/github.com/modern-go/reflect2"
DPKG_DEB = """
reflect=$3/usr/share/gocode/src/github.com/modern-go/reflect2
mkdir -p "$3/usr/bin" "$reflect"
for name in etcd kubectl; do echo >"$3/usr/bin/$name"; done
"""
MAKE = """
. "$KUBE_GIT_VERSION_FILE"
echo "$KUBE_GIT_VERSION of $KUBE_GIT_MAJOR.$KUBE_GIT_MINOR" >>"$HOME/../made"
mkdir -p src/_output/bin
for name in kube-apiserver kube-controller-manager kube-scheduler kubelet; do
    echo "$name" >"src/_output/bin/$name"
done
"""


class Builder:
    """A machine that can build; `fail` makes one of its programs fail."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.cache = folder / "bin", folder / "cache"
        self.bin.mkdir()
        texts = {"apt-get": APT_GET, "dpkg-source": DPKG_SOURCE, "dpkg-deb": DPKG_DEB, "make": MAKE}
        for name, text in (texts | dict.fromkeys(("go", "rsync"), "")).items():
            self.add(name, text)
        self.texts = texts

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o700)

    def build(self, fail: str = "") -> subprocess.CompletedProcess[str]:
        for name, text in self.texts.items():
            self.add(name, f"{text}\nexit 1" if name == fail else text)
        return subprocess.run(
            [ROOT / "scripts/kube-build"],
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(self.cache)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def made(self) -> list[str]:
        """What was compiled, each time."""
        return (self.cache / "cvl-kube/made").read_text().splitlines()

    @property
    def there(self) -> set[str]:
        folder = self.cache / "cvl-kube/bin"
        return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def test_it_builds_once_and_keeps_the_programs_alone(builder: Builder) -> None:
    assert builder.build().returncode == 0
    assert builder.there == SERVERS | {"etcd", "kubectl"}
    assert builder.made == ["v1.20.2 of 1.20"]
    assert not (builder.cache / "cvl-kube/build").exists()
    again = builder.build(fail="make")
    assert (again.returncode, again.stderr, len(builder.made)) == (0, "", 1)


@pytest.mark.parametrize("program", ["apt-get", "dpkg-source", "dpkg-deb", "make"])
def test_half_a_build_is_none_and_is_gone_on_with(builder: Builder, program: str) -> None:
    failed = builder.build(fail=program)
    assert (failed.returncode, builder.there) == (1, set())
    assert builder.build().returncode == 0
    assert builder.there == SERVERS | {"etcd", "kubectl"}


def test_it_says_what_failed(builder: Builder) -> None:
    assert "apt-get failed:" in builder.build(fail="apt-get").stderr
    assert "the servers do not compile; see" in builder.build(fail="make").stderr


def test_another_archive_than_debians_will_not_do(builder: Builder) -> None:
    builder.texts["apt-get"] = ""
    failed = builder.build()
    assert "apt has no Debian archive in its sources" in failed.stderr
    assert (failed.returncode, builder.there) == (1, set())
