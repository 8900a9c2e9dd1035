"""Prints the seconds from reading the local files to the start of a job that works on them.

python bench/sync_once.py HOST BASE ROOT EXAMPLE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cvl.core.scope import Scope
from cvl.core.spec import JobSpec, Source, new_run_id
from cvl.host import launch
from cvl.host.launch import Setup
from cvl.host.rpc import FarSide
from cvl.host.upload import tree
from cvl.transports.ssh.openssh import OpenSSH

assert tree


def main() -> None:
    host, base, root, example = sys.argv[1:]
    far = FarSide(OpenSSH(host), base)
    spec = JobSpec(
        run_id=new_run_id(example),
        argv=("true",),
        source=Source(root=Path(root), folder=example),
    )
    began = time.perf_counter()
    job = launch.start(far, spec, {"run": spec.run_id, "base": base}, Setup(), Scope())
    print(time.perf_counter() - began)
    for _ in job.chunks():
        pass
    job.close()


if __name__ == "__main__":
    main()
