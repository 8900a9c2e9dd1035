"""Profiles, taken by the program itself where a goal is missed: where the time goes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cvls import Cvl

TIMES = 5
TOP = 14
LIMIT = 120.0


def imports(cvl: Cvl, *modules: str) -> str:
    """Return what importing costs, module by module: the least of a few runs of -X importtime."""
    code = f"import {', '.join(modules)}"
    least: dict[str, int] = {}
    for _ in range(TIMES):
        words = [sys.executable, "-X", "importtime", "-c", code]
        for name, micros in _import_times(_said(words, cvl.environment())):
            least[name] = min(micros, least.get(name, micros))
    total = sum(least.values())
    lines = [f"{total / 1000:8.1f} ms  {len(least)} modules, all in all"]
    groups: dict[str, int] = {}
    for name, micros in least.items():
        group = name.partition(".")[0] if name.partition(".")[0] in OURS else "standard library"
        groups[group] = groups.get(group, 0) + micros
    lines += [f"{micros / 1000:8.1f} ms  {group}, in all" for group, micros in _most(groups)]
    lines += [f"{micros / 1000:8.1f} ms  {name}" for name, micros in _most(least)[:TOP]]
    return "\n".join(lines)


OURS = ("cvl", "click", "yaml", "rich", "pathspec", "urllib3")


def calls(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the system calls that a command and its children make, counted by strace."""
    if shutil.which("strace") is None:
        return "strace is not installed here: no system calls counted"
    with tempfile.NamedTemporaryFile() as file:
        _said(["strace", "-f", "-c", "-U", "calls,errors,name", "-o", file.name, *argv], env)
        lines = Path(file.name).read_text().splitlines()
    body = [line for line in lines[2:] if line.strip() and not line.startswith("-")]
    return "\n".join([lines[0], *body[:TOP], *body[-1:]]) if body else "\n".join(lines)


def functions(cvl: Cvl, words: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the functions in which `cvl WORDS` spends its time, by cProfile."""
    run = f"import sys; from cvl.__main__ import main; sys.argv = ['cvl', *{list(words)!r}]; main()"
    code = (
        "import cProfile, pstats, io, sys\n"
        "p = cProfile.Profile()\n"
        f"try: p.run({run!r})\n"
        "except SystemExit: pass\n"
        "out = io.StringIO()\n"
        f"pstats.Stats(p, stream=out).sort_stats('tottime').print_stats({TOP})\n"
        "sys.stderr.write(out.getvalue())\n"
    )
    text = _said([sys.executable, "-c", code], {**env, "PYTHONPATH": str(cvl.tree)})
    lines = [line for line in text.splitlines() if line.strip()]
    keep = [line for line in lines if re.match(r"\s+\d", line) or "tottime" in line]
    return "\n".join(line.replace(str(cvl.tree) + "/", "") for line in keep)


def _said(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Return what a command writes to stderr."""
    done = subprocess.run(
        argv,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=False,
    )
    return done.stderr.decode(errors="replace")


def _import_times(text: str) -> list[tuple[str, int]]:
    found = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", text, re.MULTILINE)
    return [(name, int(micros)) for micros, name in found]


def _most(times: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(times.items(), key=lambda pair: -pair[1])
