"""The ledger under many processes at once, and under death and failure at every system call.

A small library, put before the C library, kills the process at its n-th system call on files,
or lets that and all later ones fail. So the points are tried one by one, not at random.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvl import ledger

ROOT = Path(ledger.__file__).parent.parent.parent

SABOTEUR = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static long left = -1;      /* calls until it happens; -1: never */
static int failure = 0;     /* errno from then on; 0: die */
static int lockless = 0;    /* record locks fail */

void sabotage(long calls, int error) { left = calls; failure = error; }
void take_locks_away(void) { lockless = 1; }

static int strikes(void)
{
    if (left < 0) return 0;
    if (left-- > 0) return 0;
    left = 0;
    if (!failure) kill(getpid(), SIGKILL);
    errno = failure;
    return 1;
}

#define WRAP(type, name, params, args) \
    type name params { \
        static type (*real) params; \
        if (!real) real = (type (*) params) dlsym(RTLD_NEXT, #name); \
        return strikes() ? -1 : real args; \
    }

WRAP(ssize_t, pwrite, (int f, const void *b, size_t n, off_t o), (f, b, n, o))
WRAP(ssize_t, pwrite64, (int f, const void *b, size_t n, off64_t o), (f, b, n, o))
WRAP(int, fsync, (int f), (f))
WRAP(int, fdatasync, (int f), (f))
WRAP(int, ftruncate, (int f, off_t n), (f, n))
WRAP(int, ftruncate64, (int f, off64_t n), (f, n))
WRAP(int, unlink, (const char *p), (p))
WRAP(int, rename, (const char *a, const char *b), (a, b))
WRAP(int, mkdir, (const char *p, mode_t m), (p, m))

#define WRAP_FCNTL(name) \
    int name(int f, int command, ...) { \
        static int (*real)(int, int, ...); \
        if (!real) real = (int (*)(int, int, ...)) dlsym(RTLD_NEXT, #name); \
        va_list rest; va_start(rest, command); void *arg = va_arg(rest, void *); va_end(rest); \
        if (lockless && (command == F_SETLK || command == F_SETLKW)) { \
            errno = ENOLCK; return -1; \
        } \
        return real(f, command, arg); \
    }

WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)
"""

STORY = r"""
import ctypes, errno, json, os, sqlite3, sys
from pathlib import Path
from cvl.core.errors import LedgerError
from cvl.ledger import Ledger, LeaseState, Run, RunState
from cvl.core.spec import ExitStatus, Resource

saboteur = ctypes.CDLL(None)

def story(book, told):
    "A whole run and the beginning of the next; `told` hears of each step once it is done."
    book.begin(Run(id="r", handle={"host": "h"}, args=("x" * 3000,)))
    told("begun")
    book.advance("r", RunState.LAUNCHING)
    told("launching")
    lease = book.intend("r", Resource(kind="instance", name="n"), provider="cloud")
    told("intended")
    book.confirm(lease, "i-1")
    told("confirmed")
    book.advance("r", RunState.RELEASING, status=ExitStatus(3))
    told("releasing")
    (lease,) = book.leases("r")
    book.released(lease)
    told("released")
    book.finish("r", ExitStatus(3))
    told("finished")
    book.begin(Run(id="s"))
    told("again")

def one(folder, calls, error):
    "Run the story in a child that is struck; return what it was told, and how it ended."
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        saboteur.sabotage(ctypes.c_long(calls), error)
        try:
            book = Ledger(folder / "state/ledger.db", patience=5)
            story(book, lambda step: os.write(writer, step.encode() + b"\n"))
        except LedgerError:
            os._exit(7)
        except BaseException as failure:
            os.write(2, repr(failure).encode())
            os._exit(8)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        steps = pipe.read().split()
    return steps, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def sound(path):
    if not path.exists():
        return
    db = sqlite3.connect(path)
    Ledger(path).runs()
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()

def check(folder, steps):
    "Whatever was told is in the ledger; what was not may be, by one step."
    book = Ledger(folder / "state/ledger.db")
    runs = {run.id: run for run in book.runs()}
    sound(book.path)
    assert not list(folder.rglob("*.corrupt-*")), "moved aside without need"
    assert ("begun" in steps) <= ("r" in runs)
    assert ("again" in steps) <= ("s" in runs)
    if "begun" in steps:
        run, leases = runs["r"], book.leases("r")
        order = list(RunState)
        assert run.handle == {"host": "h"} and len(run.args[0]) == 3000
        assert order.index(run.state) >= ("launching" in steps)
        assert ("intended" in steps) <= len(leases)
        assert ("confirmed" in steps) <= (bool(leases) and leases[0].id == "i-1")
        assert ("released" in steps) <= (bool(leases) and leases[0].state is LeaseState.RELEASED)
        assert ("finished" in steps) <= (run.state is RunState.ENDED)
        assert run.state is not RunState.ENDED or not book.leases("r", open_only=True)
    book.begin(Run(id="after"))
    assert book.find("after").state is RunState.PLANNED

def main(folder, error):
    points = struck = 0
    while True:
        here = folder / str(points)
        here.mkdir()
        steps, code = one(here, points, error)
        assert code in (0, -9 if error == 0 else 7), (points, code)
        check(here, steps)
        points += 1
        struck += code != 0
        if code == 0:
            break
    print(json.dumps({"points": points, "struck": struck, "steps": steps}))

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
"""

WRITERS = r"""
import os, sys
from pathlib import Path
from cvl.ledger import Ledger, Run, RunState
from cvl.core.spec import ExitStatus, Resource

book = Ledger(Path(sys.argv[1]))
book.begin(Run(id="prize"))     # used before the fork, by the parent and by every child

def work(number):
    sys.stdin.buffer.read()     # all at once
    won = [book.take("prize", f"writer-{number}", "")]
    for turn in range(10):
        name = f"r{number}-{turn}"
        book.begin(Run(id=name))
        won.append(book.advance(name, RunState.LAUNCHING))
        lease = book.intend(name, Resource(kind="k", name=name), provider="p")
        won.append(book.confirm(lease, name))
        won.append(book.released(book.leases(name)[0]))
        won.append(book.finish(name, ExitStatus(turn)))
    won.append(book.finish("prize", ExitStatus(number)))
    print(sum(won), flush=True)

children = []
for number in range(8):
    pid = os.fork()
    if pid == 0:
        try:
            work(number)
        except BaseException as failure:
            print(repr(failure), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
"""


def python(script: str, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="module")
def saboteur(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and LD_PRELOAD")
    folder = tmp_path_factory.mktemp("saboteur")
    source, library = folder / "saboteur.c", folder / "saboteur.so"
    source.write_text(SABOTEUR)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: the calls are the same, and nobody waits."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else tmp_path))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("error", [0, 5, 28], ids=["killed", "EIO", "ENOSPC"])
def test_struck_at_every_system_call_it_keeps_what_it_has_said(
    memory: Path, saboteur: str, error: int
) -> None:
    done = python(STORY, memory, error, LD_PRELOAD=saboteur)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["steps"][-1] == "again"
    assert result["struck"] > 50


def test_eight_processes_write_at_once(tmp_path: Path) -> None:
    done = python(WRITERS, tmp_path / "ledger.db")
    assert (done.returncode, done.stderr) == (0, "")
    won = [int(line) for line in done.stdout.split()]
    book = ledger.Ledger(tmp_path / "ledger.db")
    runs = {run.id: run for run in book.runs()}
    assert len(runs) == 8 * 10 + 1
    assert all(run.state is ledger.RunState.ENDED for run in runs.values())
    assert {lease.id for lease in book.leases()} == runs.keys() - {"prize"}
    # Of all who tried, one took the prize and one finished it; nothing else was contested.
    assert sum(won) == 8 * 10 * 4 + 2


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path: Path, saboteur: str) -> None:
    script = (
        "import ctypes, sys, pathlib\n"
        "from cvl.core.errors import LedgerError\n"
        "from cvl.ledger import Ledger, Run\n"
        "book = Ledger(pathlib.Path(sys.argv[1]), patience=0.1)\n"
        "if sys.argv[2] == 'later': book.begin(Run(id='r'))\n"
        "ctypes.CDLL(None).take_locks_away()\n"
        "for act in (lambda: book.begin(Run(id='s')), book.runs):\n"
        "    try: print(act())\n"
        "    except LedgerError as error: print(error, '|', error.hint)\n"
    )
    for when, asked in (("first", "[]"), ("later", "no locks")):
        path = tmp_path / when / "ledger.db"
        done = python(script, path, when, LD_PRELOAD=saboteur)
        assert done.returncode == 0, done.stderr
        begun, listed = done.stdout.splitlines()
        assert "offers no locks" in begun
        assert "NFS" in begun
        assert asked in listed
        assert not list(path.parent.glob("*probe*"))
        assert not list(path.parent.glob("*.corrupt-*"))
