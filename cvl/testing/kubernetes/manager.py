"""The controller manager: every controller gets its turn whenever something has changed."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Sequence
from typing import Protocol

from cvl.testing.kubernetes.world import World

TICK = 0.1
"""Seconds between two turns while nothing changes: time passes, and deadlines with it."""


class Controller(Protocol):
    """Brings what is closer to what is wanted."""

    def step(self) -> None:
        """Do what is to be done now. Called again and again, by one thread."""


class Manager:
    """Runs controllers. What one of them stumbles over is noted as a violation."""

    def __init__(self, world: World, controllers: Sequence[Controller]) -> None:
        self._world, self._controllers = world, controllers
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="controllers")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End. Idempotent."""
        self._ending.set()
        with self._world.store.changed:
            self._world.store.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def step(self) -> None:
        """Give every controller one turn."""
        for controller in self._controllers:
            try:
                controller.step()
            except Exception:  # noqa: BLE001  (one that fails must not end the others)
                self._world.complain(traceback.format_exc())

    def _run(self) -> None:
        version = -1
        while not self._ending.is_set():
            with self._world.store.changed:
                if self._world.store.version == version:
                    self._world.store.changed.wait(TICK)
                version = self._world.store.version
            self.step()
