"""The engine's own log file of a container: what it wrote, when, and byte for byte.

The logs API will not do: of a line of over 16 KiB it loses the end. The file is the driver's
`local`, entries between their lengths, each a `LogEntry` in protocol buffers:
https://github.com/moby/moby/blob/20.10/api/types/plugins/logdriver/entry.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

TIME, LINE, PARTIAL, PARTIAL_ABOUT = 2, 3, 4, 5
LAST = 1
BYTES = 2
"""The wire type of what has a length; all else here is a varint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a container wrote at one moment (UTC epoch nanoseconds): a line, or 16 KiB of one."""

    time: int
    data: bytes

    @property
    def stamp(self) -> bytes:
        """The time as the kubelet writes it: RFC 3339, all nine digits."""
        seconds, rest = divmod(self.time, 10**9)
        day = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{day}.{rest:09}Z".encode()


class LogFile:
    """One reading of a log, from its beginning on. The file may not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._data = bytearray()

    def close(self) -> None:
        if self._file:
            self._file.close()

    def read(self) -> Iterator[Record]:
        """Yield what has come since."""
        if self._file is None and self._path.exists():
            self._file = self._path.open("rb")
        if self._file is not None:
            self._data += self._file.read()
            yield from self._take()

    def _take(self) -> Iterator[Record]:
        place = 0
        while len(self._data) - place >= 4:
            size = int.from_bytes(self._data[place : place + 4], "big")
            if len(self._data) - place < size + 8:
                break
            yield _record(bytes(self._data[place + 4 : place + 4 + size]))
            place += size + 8
        del self._data[:place]


def _record(entry: bytes) -> Record:
    found = dict(_fields(entry))
    line, partial = _bytes(found.get(LINE)), found.get(PARTIAL)
    last = dict(_fields(_bytes(found.get(PARTIAL_ABOUT)))).get(LAST)
    time = found.get(TIME, 0)
    assert isinstance(time, int)
    return Record(
        time=time,
        data=line if partial and not last else line + b"\n",
    )


def _bytes(value: int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message: their numbers and values."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        value, place = _varint(message, place)
        if key & 7 == BYTES:
            yield key >> 3, message[place : place + value]
            place += value
        else:
            yield key >> 3, value


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        shift += 7
        place += 1
        if not byte & 0x80:
            return value, place
