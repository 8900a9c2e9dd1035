"""Nodes without containers: pods stay Pending, tests write their status, deleting them works."""

from __future__ import annotations

from contextlib import suppress

from cvl.testing.kubernetes.objects import Obj, meta
from cvl.testing.kubernetes.resources import PODS
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import World


class Idle:
    """Lets pods go that are being deleted, as a kubelet does when their containers have ended."""

    def __init__(self, world: World) -> None:
        self._world = world

    def step(self) -> None:
        for pod in self._world.store.listed(PODS):
            about = meta(pod)
            node = pod["spec"].get("nodeName")
            going = about.get("deletionGracePeriodSeconds") and node
            if going and node not in self._world.silent:
                with suppress(ApiError):
                    self._world.store.update(PODS, about["namespace"], about["name"], _ended)


def _ended(pod: Obj) -> None:
    meta(pod)["deletionGracePeriodSeconds"] = 0
    if pod["status"].get("phase") not in ("Succeeded", "Failed"):
        pod["status"]["phase"] = "Failed"
