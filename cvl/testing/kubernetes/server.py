"""The wire: HTTPS/1.1 with keep-alive on loopback, and everything that can go wrong there."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass

from cvl.testing.conversation import Conversation
from cvl.testing.kubernetes.api import Api
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.requests import Reply, Request, Stream
from cvl.testing.kubernetes.wire import Wire
from cvl.testing.listener import Listener


def serve(api: Api, tls: ssl.SSLContext, port: int, hang: float) -> Listener:
    """Serve it on 127.0.0.1.

    `hang` is how long a request that gets no answer waits for one, in seconds.
    """

    def respond(listener: Listener, talk: Conversation, body: bytes) -> None:
        _Exchange(api, listener, talk, hang).run(body)

    return Listener(respond, port, tls)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request and its answer."""

    api: Api
    listener: Listener
    talk: Conversation
    hang: float

    def run(self, body: bytes) -> None:
        talk = self.talk
        request = Request(
            method=talk.command,
            path=talk.path,
            headers={key.lower(): ", ".join(talk.headers.get_all(key, ())) for key in talk.headers},
            body=body,
        )
        answer = self.api.answer(request)
        if answer.delay:
            self.listener.closing.wait(answer.delay)
        if answer.act is What.RESET or self.listener.down.is_set():
            self.talk.reset()
        elif answer.act in (What.HANG, What.LATE):
            self._say_nothing()
        elif isinstance(answer.reply, Stream):
            self._stream(answer.reply)
        elif answer.reply is not None:
            self._send(answer.reply, truncated=answer.act is What.TRUNCATED)

    def _send(self, reply: Reply, *, truncated: bool) -> None:
        """Send it whole, in one packet where it fits; or only half of what was promised."""
        word = self.talk.responses.get(reply.status, ("",))[0]
        lines = [
            f"HTTP/1.1 {reply.status} {word}",
            f"Date: {self.talk.date_time_string()}",
            "Content-Type: application/json",
            "Cache-Control: no-cache, private",
            *(f"{key}: {value}" for key, value in reply.headers.items()),
            f"Content-Length: {len(reply.body)}",
        ]
        body = reply.body[: len(reply.body) // 2] if truncated else reply.body
        self.talk.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.talk.close_connection = self.talk.close_connection or truncated

    def _stream(self, stream: Stream) -> None:
        wire = Wire(self.listener, self.talk)
        if stream.upgrade:
            self.talk.close_connection = True
            stream.run(wire)
            return
        date = self.talk.date_time_string()
        head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: text/plain"
        self.talk.wfile.write(f"{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        stream.run(wire)
        if self.listener.down.is_set() or self.listener.closing.is_set():
            self.talk.reset()
        else:
            self.talk.wfile.write(b"0\r\n\r\n")

    def _say_nothing(self) -> None:
        """Say nothing until the client gives up."""
        self.talk.close_connection = True
        wire, ends = Wire(self.listener, self.talk), time.monotonic() + self.hang
        while time.monotonic() < ends and not wire.gone():
            wire.wait(seconds=0.2)
