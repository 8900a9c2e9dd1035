"""Changes that break a promise, each with the tests that must notice: `make mutants`.

The changes stand in `cvl/tests/mutants.toml`. Each is made in a copy of the source tree, where the
tests run that it names. A change that no test notices ends it with 1, and is named.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "cvl/tests/mutants.toml"
LIMIT = 900.0
"""Seconds that the tests of one change may take; a change by which they hang is noticed, too."""
NOTICED, NONE_RAN = {1}, 5
"""Exit codes of pytest: tests have failed; none was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change: in `file`, `was` becomes `now`. `breaks` says what; `tests` is for pytest."""

    file: str
    was: str
    now: str
    breaks: str
    tests: str

    def applied(self, text: str) -> str:
        """Return a file's text with the change in it. Raises `ValueError` unless it fits once."""
        if text.count(self.was) != 1:
            raise ValueError(f"{self.file} has {text.count(self.was)} times: {self.was}")
        return text.replace(self.was, self.now)


def mutants(path: Path = LIST) -> list[Mutant]:
    """Return the changes of the list."""
    return [Mutant(**each) for each in tomllib.loads(path.read_text("utf-8"))["mutant"]]


def noticed(mutant: Mutant, tree: Path) -> str:
    """Make a change in a copy of the tree, run its tests, undo it; return "" if one has failed."""
    file = tree / mutant.file
    before = file.read_text("utf-8")
    file.write_text(mutant.applied(before), "utf-8")
    words = (tree / ".venv/bin/python", "-m", "pytest", "-x", "-q", "-n", "0")
    try:
        done = subprocess.run(
            [*words, "-p", "no:cacheprovider", *shlex.split(mutant.tests)],
            cwd=tree,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    finally:
        file.write_text(before, "utf-8")
    if done.returncode in NOTICED:
        return ""
    return "no test was found" if done.returncode == NONE_RAN else "not noticed"


@contextmanager
def copied(count: int) -> Iterator[SimpleQueue[Path]]:
    """Make copies of the source tree, each with a virtual environment that leads to it."""
    trees = SimpleQueue[Path]()
    with TemporaryDirectory(prefix="cvl-mutants-") as folder:
        for number in range(count):
            tree = Path(folder, str(number))
            leave = shutil.ignore_patterns(".git", "__pycache__", "cvl-runs", ".*_cache")
            shutil.copytree(ROOT, tree, symlinks=True, ignore=leave)
            for each in (tree / ".venv").glob("lib/python*/site-packages/*.pth"):
                each.write_text(each.read_text("utf-8").replace(str(ROOT), str(tree)), "utf-8")
            trees.put(tree)
        yield trees


def main(argv: Sequence[str] | None = None) -> int:
    """Try the changes of the list, or those whose file or words hold one of the given words."""
    parser = argparse.ArgumentParser(prog="python -m cvl.testing.mutants", description=__doc__)
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("word", nargs="*")
    given = parser.parse_args(argv)
    chosen = [
        each
        for each in mutants()
        if not given.word or any(word in f"{each.file} {each.breaks}" for word in given.word)
    ]
    with copied(given.jobs) as trees, ThreadPoolExecutor(given.jobs) as pool:

        def tried(mutant: Mutant) -> str:
            tree = trees.get()
            try:
                return noticed(mutant, tree)
            finally:
                trees.put(tree)

        missed = 0
        for mutant, why in zip(chosen, pool.map(tried, chosen), strict=True):
            missed += bool(why)
            sys.stdout.write(f"{why or 'noticed'}: {mutant.file}: {mutant.breaks}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} changes were noticed\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
