"""The cvl that is measured: this checkout's, and with it, in the same rounds, an earlier one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.rivals import cache
from bench.values import Failed

CHECKOUT = Path(__file__).resolve().parent.parent
LAUNCHER = """\
#!{python}
import sys
sys.path[:0] = [{tree!r}]
from cvl.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cvl:
    """One cvl: `name` as it stands in the tables, the program, and the folder of its package."""

    name: str
    tree: Path
    program: str
    env: Mapping[str, str] = field(default_factory=dict)

    def called(self, words: str) -> str:
        """Return what stands in a table for `cvl WORDS` of this one."""
        return f"cvl {words}{self.name}"

    def python(self, script: str) -> list[str]:
        """Return what runs a script of ours with this cvl to import."""
        return [sys.executable, str(CHECKOUT / "bench" / script)]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment for it: no settings of the user's own, nor of Python's.

        Where PYTHONDONTWRITEBYTECODE is set, a checkout would be compiled at each start.
        """
        bare = {k: v for k, v in os.environ.items() if not k.startswith(("CVL_", "PYTHON"))}
        return {**bare, "PYTHONPATH": str(self.tree), **self.env, **more}


def now(folder: Path) -> Cvl:
    """Return this checkout's; its launcher is written into `folder`."""
    return Cvl(name="", tree=CHECKOUT, program=_launcher(folder / "cvl", CHECKOUT))


def before(revision: str, folder: Path) -> Cvl:
    """Return the cvl of an earlier revision, checked out beside the rivals. Raises `Failed`."""
    commit = _git("rev-parse", "--short=10", f"{revision}^{{commit}}")
    tree = cache() / f"cvl-{commit}"
    if not (tree / "cvl").is_dir():
        tree.mkdir(exist_ok=True)
        archive = subprocess.run(
            ["git", "-C", str(CHECKOUT), "archive", commit], capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    program = _launcher(folder / f"cvl-{commit}", tree)
    return Cvl(name=f" @{commit}", tree=tree, program=program)


def revision() -> str:
    """Return what names this checkout's state, "" outside of git."""
    try:
        return _git("describe", "--always", "--dirty", "--abbrev=10")
    except Failed:
        return ""


def _launcher(file: Path, tree: Path) -> str:
    """Write what pip would write as the program `cvl`, for the package in `tree`."""
    file.write_text(LAUNCHER.format(python=sys.executable, tree=str(tree)))
    file.chmod(0o755)
    return str(file)


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
