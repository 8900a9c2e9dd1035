"""A connection while an answer is streamed into it, and waiting for sockets."""

from __future__ import annotations

import select
import ssl

from cvl.testing.conversation import Conversation
from cvl.testing.listener import Listener


class Wire:
    """The connection of one answer. `receive` and `raw` are for those that are upgraded."""

    def __init__(self, listener: Listener, talk: Conversation) -> None:
        self.listener, self.talk = listener, talk
        self._connection: ssl.SSLSocket = talk.connection
        self._socket = talk.connection.fileno()

    def send(self, data: bytes) -> None:
        """Send some of the body. Raises `OSError` when the client has gone."""
        if data:
            self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.talk.wfile.write(data)

    def receive(self) -> bytes:
        """Return what the client has sent, b"" if it has closed."""
        return bytes(self.talk.rfile.read1(2**16))

    def ended(self) -> bool:
        """Return whether the server ends."""
        return self.listener.closing.is_set() or self.listener.down.is_set()

    def gone(self) -> bool:
        """Return whether the client has gone, or the server ends. Not for upgraded ones."""
        return self.ended() or readable(0.0, self._socket)

    def wait(self, *others: int, seconds: float) -> bool:
        """Wait until one of `others` can be read, or the client speaks or goes."""
        return bool(self._connection.pending()) or readable(seconds, self._socket, *others)

    def reset(self) -> None:
        """Break the connection, so that the client sees it broken. Raises `OSError`."""
        self.talk.reset()
        raise ConnectionResetError("injected")


def readable(seconds: float, *descriptors: int) -> bool:
    """Return whether one of them has something, or is closed, before the time is over."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(seconds * 1000))
    except OSError:
        return True
