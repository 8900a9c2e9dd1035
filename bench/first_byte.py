"""How long until the first byte of a run's output, against a cold `ssh HOST cmd`.

    python bench/first_byte.py [--rounds 11]

The host is a throw-away sshd on loopback; what is only done once (our files there, cvl there, the
example's first sync) is done before. "kept": over the connection that an earlier command left;
"cold": without one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from pairs import first_byte, in_turns, table

from cvl.testing.sshd import Sshd
from cvl.transports.openssh import OpenSSH

GOALS = {
    "cvl --ssh, cold": 2.0,
    "cvl --ssh, kept": 1.0,
    "cvl --docker, cold": 1.4,
    "cvl --docker, kept": 0.55,
}


def example(root: Path) -> None:
    """Make a small example that only says something."""
    folder = root / "examples" / "bench" / "hello"
    folder.mkdir(parents=True)
    (folder / "example.yaml").write_text("name: hello\ncapability: bench\npresets: [train]\n")
    (folder / "train.sh").write_text("echo hello\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Sshd(Path(name, "sshd")) as host:
        example(Path(name, "repo"))
        env = {**os.environ, **host.env, "CVL_STATE_DIR": f"{name}/state"}
        env["CVL_ROOT"] = f"{name}/repo"
        os.environ.update(host.env)
        transport = OpenSSH(host.name)
        cvl = [str(Path(sys.executable).with_name("cvl")), "run", "--no-fetch", "-q"]

        def run(flag: str, *, cold: bool = False) -> float:
            if cold:
                transport.close_master()
            return first_byte([*cvl, flag, host.name, "hello", "train"], env)

        ssh = ["ssh", "-F", str(host.ssh_config), "-S", "none", host.name, "echo hello"]
        measures = {
            "ssh HOST cmd, cold": partial(first_byte, ssh, env),
            "cvl --ssh, cold": partial(run, "--ssh", cold=True),
            "cvl --ssh, kept": partial(run, "--ssh"),
            "cvl --docker, cold": partial(run, "--docker", cold=True),
            "cvl --docker, kept": partial(run, "--docker"),
        }
        print(table(in_turns(measures, options.rounds), "ssh HOST cmd, cold", GOALS))
        transport.close_master()


if __name__ == "__main__":
    main()
