"""Waiting for sockets."""

from __future__ import annotations

import select


def readable(seconds: float, *descriptors: int) -> bool:
    """Return whether one of them has something, or is closed, before the time is over."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(seconds * 1000))
    except OSError:
        return True
