"""How fast a run's output comes through, against `ssh HOST cat FILE > file`.

    python bench/streaming.py [--megabytes 300] [--rounds 5]

The host is a throw-away sshd on loopback. Both write into a file; ours writes a log of its own
beside it, as every run does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pairs import in_turns, table

from cvl.testing.sshd import Sshd
from cvl.transports.openssh import OpenSSH

GOALS = {"cvl run": 2.0}
MEGABYTE = 1_000_000


def into_file(argv: Sequence[str], out: Path, env: Mapping[str, str]) -> float:
    """Return the seconds that a command takes to write all of its output into `out`."""
    began = time.perf_counter()
    with out.open("wb") as file:
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=None,
            env=env,
            check=True,
        )
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Sshd(Path(name, "sshd")) as host:
        big = Path(name, "big")
        with big.open("wb") as file:
            for _ in range(options.megabytes):
                file.write(os.urandom(MEGABYTE))
        folder = Path(name, "repo", "examples", "bench", "big")
        folder.mkdir(parents=True)
        (folder / "example.yaml").write_text("name: big\ncapability: bench\npresets: [train]\n")
        (folder / "train.sh").write_text(f"cat {big}\n")
        env = {**os.environ, **host.env, "CVL_STATE_DIR": f"{name}/state"}
        env["CVL_ROOT"] = f"{name}/repo"
        os.environ.update(host.env)
        cvl = [str(Path(sys.executable).with_name("cvl")), "run", "-q", "--ssh", host.name]
        ssh = ["ssh", "-F", str(host.ssh_config), "-S", "none", host.name, f"cat {big}"]
        out = Path(name, "out")
        measures = {
            "ssh cat": partial(into_file, ssh, out, env),
            "cvl run": partial(into_file, [*cvl, "big", "train"], out, env),
        }
        found = in_turns(measures, options.rounds)
        assert out.read_bytes() == big.read_bytes()
        print(table(found, "ssh cat", GOALS))
        OpenSSH(host.name).close_master()


if __name__ == "__main__":
    main()
