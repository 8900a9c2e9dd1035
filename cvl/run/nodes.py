"""What a run on several nodes is to its script and to whoever reads it: the same for every runner.

The words are those of `torchrun --nnodes $WORLD_SIZE --node-rank $NODE_RANK --master-addr
$MASTER_ADDR --master-port $MASTER_PORT`; a run on one node has them too.
"""

from __future__ import annotations

from collections.abc import Iterable

from cvl.core.frozen import dataclass
from cvl.core.spec import Cause

NODE_RANK, WORLD_SIZE = "NODE_RANK", "WORLD_SIZE"
"""Which node this is, from 0; how many nodes there are."""
MASTER_ADDR, MASTER_PORT = "MASTER_ADDR", "MASTER_PORT"
"""Where the nodes meet: the first node's name, and a port."""
PORT = 29500


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnd:
    """How one node ended. `time` orders the nodes of one run, "" is unknown; only compared."""

    node: int
    code: int
    cause: Cause = Cause.EXITED
    detail: str = ""
    time: int | str = ""


def variables(nodes: int, rank: int = 0, master: str = "localhost") -> dict[str, str]:
    """Return what a node's script is told."""
    return {
        NODE_RANK: str(rank),
        WORLD_SIZE: str(nodes),
        MASTER_ADDR: master,
        MASTER_PORT: str(PORT),
    }


def first_failed(ends: Iterable[NodeEnd]) -> NodeEnd | None:
    """Return the node that failed first, None if none is known to have failed.

    What ends because another node failed ends later, or was stopped for it.
    """
    failed = [each for each in ends if each.code or each.cause is not Cause.EXITED]
    return min(
        failed,
        key=lambda each: (each.cause is Cause.STOPPED, each.time or "9", each.node),
        default=None,
    )


def folder(node: int) -> str:
    """Return where below the results a node's own lie: those of the first at the top."""
    return f"node-{node}" if node else ""


def prefix(node: int) -> bytes:
    """Return what stands before each line of a node's output, where there are several."""
    return f"[{node}] ".encode()
