"""The engine's multiplexed streams: eight bytes of head, then so many bytes of one stream."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

STDOUT, STDERR = 1, 2


@dataclass(slots=True)
class Frames:
    """A stream on its way: what came of it, frame by frame."""

    connection: socket.socket
    data: bytearray = field(default_factory=bytearray)

    def read(self) -> bool:
        """Read what there is, waiting for it; return whether the stream goes on."""
        more = self.connection.recv(2**16)
        self.data += more
        return bool(more)

    def take(self) -> Iterator[tuple[int, bytes]]:
        """Return the frames that are whole."""
        while len(self.data) >= 8:
            kind, size = struct.unpack(">BxxxI", self.data[:8])
            if len(self.data) < 8 + size:
                return
            whole = bytes(self.data[8 : 8 + size])
            del self.data[: 8 + size]
            yield kind, whole
