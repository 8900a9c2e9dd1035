"""Every runner speaks of nodes in the same words."""

from __future__ import annotations

from cvl.providers.sagemaker.image import ENTRY_FILE
from cvl.providers.sagemaker.logs import Ending, first_failed
from cvl.run.nodes import folder, prefix, variables
from cvl.tests.scripts import NANOGPT


def test_the_words_are_the_same_everywhere() -> None:
    words = set(variables(2, 1, "master"))
    assert words == {"NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    entry = ENTRY_FILE.read_text()
    script = (NANOGPT / "train.sh").read_text()
    for word in words:
        assert word in entry
        assert f"${word}" in script or f"${{{word}" in script
    assert variables(1)["MASTER_PORT"] in entry


def test_the_first_to_fail_counts() -> None:
    ends = [Ending(node=0, code=0, time=1), Ending(node=1, code=143, time=9)]
    assert first_failed([*ends, Ending(node=2, code=3, time=5)]) == Ending(node=2, code=3, time=5)
    alike = [Ending(node=1, code=4, time=5), Ending(node=0, code=3, time=5)]
    assert first_failed(alike) == alike[1]
    assert first_failed(ends[:1]) is None


def test_the_first_nodes_results_lie_at_the_top() -> None:
    assert [folder(node) for node in (0, 1, 10)] == ["", "node-1", "node-10"]
    assert prefix(3) == b"[3] "
