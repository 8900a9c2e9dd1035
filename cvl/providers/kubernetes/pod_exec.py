"""A command in a running container, over a WebSocket: `kubectl exec`'s own way.

Each message begins with a channel: 0 input, 1 output, 2 errors, 3 a Status at the end.
https://kubernetes.io/docs/reference/kubernetes-api/definitions/ and client-go's remotecommand,
protocols `v5.channel.k8s.io` and `v4.channel.k8s.io`.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cvl.core import replies
from cvl.core.errors import CvlError, Unreachable, used_up
from cvl.core.http.errors import reason
from cvl.core.http.pool import CONNECT_LIMIT, dialled
from cvl.core.octets import octets
from cvl.providers.kubernetes.api_errors import EXTRA, certificate_refused, understood
from cvl.providers.kubernetes.client import Client
from cvl.providers.kubernetes.login import Door
from cvl.providers.kubernetes.manifest import CONTAINER

if TYPE_CHECKING:
    from logging import Logger

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
IN, OUT, ERR, STATUS = 0, 1, 2, 3
SILENCE = 60.0
"""Seconds without a byte after which a command is given up."""
CLOSE_LIMIT = 2.0
"""Seconds that the other side has for its farewell."""
STUCK = struct.pack("ll", int(SILENCE), 0)
"""The same for what is sent, as sockets take it."""
MESSAGE = 1 << 23
"""Bytes of one message; servers cut at 32 KiB."""
EXIT, CODE = "ExitCode", re.compile(r"[0-9]{1,3}")
"""By what a command's exit code is known, and how it is written."""
KEPT = 4000
"""Bytes of what a command says on stderr that are kept for the error."""


class Failed(CvlError):
    """The command itself failed; `code` is its exit code."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said or f"it ended with exit code {code}")
        self.code = code


def output(
    client: Client, pod: str, argv: Sequence[str], feed: Iterable[bytes] | None = None
) -> Generator[bytes, None, None]:
    """Run `argv` in the job's container of a pod (`/api/v1/...`); yield its output as it comes.

    `feed` is what it reads, all of it before its output is heard: it has to know where that ends.
    Raises `Failed`, `Unreachable` when it breaks off, and what `api_errors.understood` says.
    """
    stderr = b""
    connect = partial(_opened, pod=pod, argv=argv, reads=feed is not None)
    with client.doors.through(connect) as connection:
        _fed(connection, feed or ())
        for message in _messages(connection):
            channel, data = message[0], message[1:]
            if channel == OUT:
                if data:
                    yield data
            elif channel == ERR:
                stderr = (stderr + data)[-KEPT:]
            elif channel == STATUS:
                _judge(data, stderr.decode(errors="replace").strip())
                return
    raise Unreachable("the command's connection broke off before its end")


def _fed(connection: Any, feed: Iterable[bytes]) -> None:
    """Send what a command reads; where it has ended before, its status tells why."""
    closed = installed("exceptions").ConnectionClosed
    for block in feed:
        try:
            connection.send(bytes([IN]) + block)
        except closed:
            return
        except Exception as error:
            raise Unreachable(f"the command's connection broke: {reason(error)}") from error


def installed(part: str = "exceptions") -> Any:
    """Return a part of websockets. Raises `MissingExtra`."""
    return EXTRA.needed(f"websockets.{part}")


def quiet() -> Logger:
    """Return what hears of each broken connection with a traceback: nobody."""
    from logging import NullHandler, getLogger

    logger = getLogger("cvl.providers.kubernetes.pod_exec")
    if not logger.handlers:
        logger.addHandler(NullHandler())
        logger.propagate = False
    return logger


def _messages(connection: Any) -> Iterator[bytes]:
    closed = installed("exceptions").ConnectionClosed
    while True:
        try:
            message = connection.recv(timeout=SILENCE)
        except closed:
            return
        except Exception as error:
            raise Unreachable(f"the command's connection broke: {reason(error)}") from error
        if message:
            yield message if isinstance(message, bytes) else octets(message)


def _opened(door: Door, pod: str, argv: Sequence[str], *, reads: bool) -> Any:
    connect, exceptions = installed("sync.client").connect, installed("exceptions")
    query = [("container", CONTAINER), ("stdout", "true"), ("stderr", "true")]
    query += [("stdin", "true")] if reads else []
    query += [("command", word) for word in argv]
    server = door.access.server
    more: dict[str, Any] = {"ssl": door.tls} if door.tls else {}
    if name := door.access.cluster.get("tls-server-name"):
        more["server_hostname"] = name
    try:
        line = dialled(server, door.proxy, CONNECT_LIMIT)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, STUCK)
        with _bounded(line):
            return connect(
                f"{server.replace('http', 'ws', 1)}{pod}/exec?{urlencode(query)}",
                sock=line,
                subprotocols=PROTOCOLS,
                additional_headers=door.headers,
                open_timeout=CONNECT_LIMIT,
                close_timeout=CLOSE_LIMIT,
                ping_interval=None,
                compression=None,
                max_size=MESSAGE,
                logger=quiet(),
                **more,
            )
    except exceptions.InvalidStatus as error:
        refusal = understood(error.response.status_code, error.response.body or b"")
        refusal.wait = replies.asked_to_wait(error.response.headers)
        raise refusal from error
    except CvlError:
        raise
    except Exception as error:  # among them: it would send us, and our token, elsewhere
        if (refused := certificate_refused(error)) is not None:
            raise refused from error
        text = f"no command can be run in {pod.rpartition('/')[2]}: {reason(error)}"
        raise used_up(error) or Unreachable(text) from error


@contextmanager
def _bounded(line: socket.socket) -> Iterator[None]:
    """Cut the line when a connection is not there in time.

    websockets' own limit waits for its reader, which nothing wakes where TLS has bytes that are
    not yet a message: a server that sends session tickets and then no answer.
    """
    with line.dup() as spare:
        timer = threading.Timer(CONNECT_LIMIT + 1, _cut, (spare,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _cut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _judge(data: bytes, said: str) -> None:
    """Raise unless a Status tells success: one that nobody can read does not."""
    try:
        status = replies.entry(replies.parsed(data))
    except ValueError:
        status = {}
    if status.get("status") == "Success":
        return
    causes = map(replies.entry, replies.entries(replies.entry(status.get("details")).get("causes")))
    codes = [replies.text(each.get("message")) for each in causes if each.get("reason") == EXIT]
    if codes and CODE.fullmatch(codes[0]):
        raise Failed(int(codes[0]), said)
    why = replies.text(status.get("message")) or said
    raise Unreachable(f"the command could not be run: {why}")
