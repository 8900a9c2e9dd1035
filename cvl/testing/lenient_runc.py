"""Lowers what a container asks for to what root has here: run before `runc create --bundle DIR`.

In some virtual machines root lacks CAP_SYS_RESOURCE: it may raise no limit and lower no
`oom_score_adj`, and containers that want either, as every pod does, would not start. Only the
standard library, and little of it: this runs before each container.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

SYS_RESOURCE = 24
"""The number of the capability (linux/capability.h)."""


def main(words: list[str]) -> None:
    """Rewrite config.json (OCI runtime specification) in the folder that `--bundle` names."""
    if _capable(SYS_RESOURCE):
        return
    file = Path(words[words.index("--bundle") + 1], "config.json")
    config = json.loads(file.read_text())
    process = config.get("process", {})
    if process.get("oomScoreAdj", 0) < 0:
        del process["oomScoreAdj"]
    for limit in process.get("rlimits", ()):
        _lower(limit)
    for names in process.get("capabilities", {}).values():
        names[:] = [name for name in names if name != "CAP_SYS_RESOURCE"]
    file.write_text(json.dumps(config))


def _capable(number: int) -> bool:
    status = Path("/proc/self/status").read_text().split()
    return bool(int(status[status.index("CapEff:") + 1], 16) >> number & 1)


def _lower(limit: dict[str, Any]) -> None:
    """Lower an rlimit to our hard one."""
    _, ours = resource.getrlimit(getattr(resource, limit["type"]))
    for end in ("hard", "soft"):
        if ours != resource.RLIM_INFINITY:
            limit[end] = min(limit[end], ours)


if __name__ == "__main__":
    main(sys.argv[1:])
