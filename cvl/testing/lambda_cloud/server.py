"""The wire: HTTP/1.1 with keep-alive on loopback, and everything that can go wrong there."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Protocol

from cvl.testing.conversation import IDLE_LIMIT, Conversation
from cvl.testing.lambda_cloud.api import Answer, Request
from cvl.testing.lambda_cloud.faults import What
from cvl.testing.lambda_cloud.replies import Reply
from cvl.testing.listener import Listener


class Application(Protocol):
    """What the server serves."""

    def answer(self, request: Request) -> Answer | Reply: ...
    def answered(self, answer: Answer) -> None: ...
    def utc(self) -> float: ...


def serve(application: Application, port: int = 0, hang: float = IDLE_LIMIT) -> Listener:
    """Serve it on 127.0.0.1.

    `hang` is how long a request that gets no answer waits for one, in seconds.
    """

    def respond(listener: Listener, talk: Conversation, body: bytes) -> None:
        _Exchange(application, listener, talk, hang).run(body)

    return Listener(respond, port)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request and its answer."""

    application: Application
    listener: Listener
    talk: Conversation
    hang: float

    def run(self, body: bytes) -> None:
        talk = self.talk
        request = Request(
            method=talk.command,
            path=talk.path,
            authorization=talk.headers.get("Authorization", ""),
            body=body,
            port=talk.client_address[1],
        )
        answer = self.application.answer(request)
        if isinstance(answer, Reply):
            self._send(answer)
            return
        self._act(answer)
        self.application.answered(answer)

    def _act(self, answer: Answer) -> None:
        if answer.delay and answer.act is not What.DRIP:
            self.listener.closing.wait(answer.delay)
        if answer.act is What.RESET or self.listener.down.is_set():
            self.talk.reset()
        elif answer.act is What.HANG:
            self._say_nothing()
        elif answer.reply is not None:
            self._send(answer.reply, answer.act, answer.delay)

    def _send(self, reply: Reply, act: What | None = None, delay: float = 0.0) -> None:
        """Send it whole, in one packet where it fits; or as `act` says."""
        date = f"Date: {formatdate(self.application.utc(), usegmt=True)}\r\n"
        head = (
            f"HTTP/1.1 {reply.status} {self.talk.responses.get(reply.status, ('',))[0]}\r\n"
            f"{'' if act is What.NO_DATE else date}Content-Type: {reply.type}\r\n"
            f"Content-Length: {len(reply.body)}\r\n\r\n"
        )
        truncated = act is What.TRUNCATED
        body = reply.body[: len(reply.body) // 2] if truncated else reply.body
        if act is What.DRIP:
            self._drip(head.encode() + body, delay)
        else:
            self.talk.wfile.write(head.encode() + body)
        self.talk.close_connection = self.talk.close_connection or truncated

    def _drip(self, data: bytes, pause: float) -> None:
        """Send byte by byte: never silent for long, never done."""
        for byte in data:
            if self.listener.closing.wait(pause):
                return
            self.talk.wfile.write(bytes((byte,)))

    def _say_nothing(self) -> None:
        """Say nothing until the client gives up."""
        self.talk.close_connection = True
        ends = time.monotonic() + self.hang
        while time.monotonic() < ends and not self.listener.closing.is_set():
            ready, _, _ = select.select([self.talk.connection], [], [], 0.2)
            if ready and not self.talk.connection.recv(1, socket.MSG_PEEK):
                return
