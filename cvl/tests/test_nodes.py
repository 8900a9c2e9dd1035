"""Every runner speaks of nodes in the same words."""

from __future__ import annotations

from dataclasses import replace

from cvl.core.spec import Cause
from cvl.providers.sagemaker.image import entry
from cvl.run.nodes import NodeEnd, first_failed, folder, prefix, variables
from cvl.tests.scripts import NANOGPT


def end(node: int, code: int, time: int) -> NodeEnd:
    return NodeEnd(node=node, code=code, time=time)


def test_the_words_are_the_same_everywhere() -> None:
    words = set(variables(2, 1, "master"))
    assert words == {"NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    entry_script = entry().decode()
    script = (NANOGPT / "train.sh").read_text()
    for word in words:
        assert word in entry_script
        assert f"${word}" in script or f"${{{word}" in script
    assert variables(1)["MASTER_PORT"] in entry_script


def test_the_first_to_fail_counts() -> None:
    assert first_failed([end(0, 0, 1), end(1, 143, 9), end(2, 3, 5)]) == end(2, 3, 5)
    assert first_failed([end(1, 4, 5), end(0, 3, 5)]) == end(0, 3, 5)
    assert first_failed([end(0, 0, 1)]) is None
    stopped = replace(end(1, 128, 2), cause=Cause.STOPPED)
    assert first_failed([stopped, end(2, 3, 5)]) == end(2, 3, 5)
    assert first_failed([stopped, end(2, 0, 5)]) == stopped


def test_the_first_nodes_results_lie_at_the_top() -> None:
    assert [folder(node) for node in (0, 1, 10)] == ["", "node-1", "node-10"]
    assert prefix(3) == b"[3] "
