"""How long cvl takes to start, against a bare Python in the same environment.

    python bench/startup.py [--rounds 15] [--root FOLDER]

`list` reads the root's examples (the shipped ones, or FOLDER, a checkout of many); `ps` a ledger
with 10,000 runs, made for this in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from pairs import in_turns, table, whole

from cvl.ledger import Ledger, Run, RunState
from cvl.spec import ExitStatus

RUNS = 10_000
GOALS = {"cvl --version": 2.5}


def fill(ledger: Ledger) -> None:
    """Note many runs that have ended."""
    for number in range(RUNS):
        run = ledger.begin(Run(id=f"run-{number}", example="examples/a/b", preset="train"))
        ledger.advance(run.id, RunState.LAUNCHING)
        ledger.finish(run.id, ExitStatus(0, run_id=run.id))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--root", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill(Ledger(Path(folder, "ledger.db")))
        env = {**os.environ, "CVL_STATE_DIR": folder}
        if options.root:
            env["CVL_ROOT"] = options.root
        cvl = [str(Path(sys.executable).with_name("cvl"))]
        measures = {
            "python -c pass": partial(whole, [sys.executable, "-c", "pass"], env),
            "cvl --version": partial(whole, [*cvl, "--version"], env),
            "cvl --help": partial(whole, [*cvl, "--help"], env),
            "cvl list": partial(whole, [*cvl, "list"], env),
            f"cvl ps ({RUNS} runs)": partial(whole, [*cvl, "ps"], env),
        }
        print(table(in_turns(measures, options.rounds), "python -c pass", GOALS))


if __name__ == "__main__":
    main()
