"""Hosts that mean us no good, or are just broken: what a login there does, by name.

A `Login` is the forced command of an sshd. It is honest until it is told to `turn`; then requests
of the verbs named are answered as one of `BEHAVIOURS` says, all others as before. This file is
also the program that runs over there: it needs nothing but Python, and may be copied alone.

    with hostile.host(folder) as there:        # a plain sshd
        there.login.turn("hang")               # every request hangs
        there.login.turn("flood-stderr", "stop", "status")
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cvl.testing.machine import Machine
    from cvl.testing.sshd import Sshd

OUT, ERR = 1, 2
BLOCK = 1 << 16
TAR_BLOCK = 512
SLOWLY = 0.1
"""Seconds between two bytes of a slow answer."""
MANY = 1 << 40
PYTHON = "/usr/bin/python3"
"""What runs this file on a machine of its own."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked: `verb` is "" for a command that is no request of ours."""

    head: bytes
    command: str
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def verb(self) -> str:
        return self.fields.get("verb", "")

    @property
    def mark(self) -> bytes:
        """What stands before each of our answers."""
        return b"cvl:" + self.fields.get("nonce", "").encode()


Behaviour = Callable[[Request], None]


def hang(_request: Request) -> None:
    """Read nothing, say nothing: a stuck login shell, a dead home disk."""
    while True:
        time.sleep(1000)


def deaf(request: Request) -> None:
    """Take all that is sent, and say nothing."""
    while os.read(0, BLOCK):
        pass
    hang(request)


def drip(_request: Request) -> None:
    """Say one byte a second, for ever."""
    while True:
        _put(OUT, b".")
        _put(ERR, b".")
        time.sleep(1)


def drip_payload(request: Request) -> None:
    """Answer as it should be, but one byte a second."""
    _put(OUT, request.mark + b"\n")
    drip(request)


def flood_stderr(_request: Request) -> None:
    """Complain without end, and without a line break."""
    _flood(ERR, b"x" * BLOCK)


def flood_lines(_request: Request) -> None:
    """Complain without end, in lines."""
    _flood(ERR, b"something is wrong here\n" * 2000)


def flood_stdout(_request: Request) -> None:
    """Greet without end: the line that says where the payload begins never comes."""
    _flood(OUT, b"x" * BLOCK)


def flood_payload(request: Request) -> None:
    """Send a payload without end."""
    _put(OUT, request.mark + b"\n")
    _flood(OUT, bytes(BLOCK))


def flood_answers(request: Request) -> None:
    """Answer, and answer, and answer."""
    _flood(ERR, (request.mark + b" warn all is well\n") * 1000)


def long_answer(request: Request) -> None:
    """Begin an answer that never ends."""
    _put(ERR, request.mark + b" warn ")
    _flood(ERR, b"x" * BLOCK)


def garbage_result(request: Request) -> None:
    """A result of one word."""
    _result(request, b"exited")


def exited_256(request: Request) -> None:
    """An exit code that is none."""
    _result(request, b"exited 256 0")


def exited_huge(request: Request) -> None:
    """An exit code of 5000 digits."""
    _result(request, b"exited " + b"9" * 5000 + b" 0")


def garbage(_request: Request) -> None:
    """Bytes by chance, everywhere."""
    for descriptor in (OUT, ERR):
        _put(descriptor, os.urandom(BLOCK))


def more_than_named(request: Request) -> None:
    """Name five bytes of output, and send it without end."""
    _put(OUT, request.mark + b"\n")
    _put(ERR, request.mark + b" result exited 0 5\n")
    _flood(OUT, b"o" * BLOCK)


def less_than_named(request: Request) -> None:
    """Name more output than is ever sent."""
    _put(OUT, request.mark + b"\n")
    _put(ERR, request.mark + b" result exited 0 5000\n")


def slowly(request: Request) -> None:
    """End well, but tell it a byte at a time."""
    _put(OUT, request.mark + b"\nhello\n")
    os.close(OUT)
    for byte in request.mark + b" result exited 3 6\n":
        _put(ERR, bytes((byte,)))
        time.sleep(SLOWLY)


def close_early(_request: Request) -> None:
    """Hang up at once, as if all were well."""


def close_after_mark(request: Request) -> None:
    """Hang up where the payload begins."""
    _put(OUT, request.mark + b"\n")


def huge_listing(request: Request) -> None:
    """List results without end."""
    _put(OUT, request.mark + b"\n")
    for number in itertools.count():
        rows = (b"f\t1:1\tw\tfile-%d-%d\0" % (number, row) for row in range(1000))
        _put(OUT, b"".join(rows))


def wide_listing(request: Request) -> None:
    """List one result whose name never ends."""
    _put(OUT, request.mark + b"\nf\t1:1\tw\t")
    _flood(OUT, b"n" * BLOCK)


def sized_listing(request: Request) -> None:
    """List one result of a size that no disk has."""
    _put(OUT, request.mark + b"\nf\t999999999999999999:1\tw\tbig\0")


def pax_bomb(request: Request) -> None:
    """A tar of headers about the next header, 1 MB each, without end."""
    record = b"1048576 path=" + b"p" * (1048576 - 14) + b"\n"
    _put(OUT, request.mark + b"\n")
    _flood(OUT, tar_header(b"x", len(record), b"x") + record)


def name_bomb(request: Request) -> None:
    """A tar of long names, without end."""
    name = b"n" * (1 << 16)
    _put(OUT, request.mark + b"\n")
    _flood(OUT, tar_header(b"././@LongLink", len(name), b"L") + name)


def small_headers(request: Request) -> None:
    """A tar of small headers about all that follows, without end."""
    record = b"20 comment=12345678\n".ljust(TAR_BLOCK, b"\0")
    _put(OUT, request.mark + b"\n")
    _flood(OUT, (tar_header(b"g", 20, b"g") + record) * 64)


def strange_members(request: Request) -> None:
    """A tar of files that nobody has asked for, without end."""
    _put(OUT, request.mark + b"\n")
    for number in itertools.count():
        rows = (tar_header(b"other-%d-%d" % (number, row), 0) for row in range(100))
        _put(OUT, b"".join(rows))


def fat_member(request: Request) -> None:
    """A tar whose one file, of those asked for, is a terabyte."""
    _put(OUT, request.mark + b"\n")
    wanted = os.read(0, BLOCK).partition(b"\0")[0]
    _put(OUT, tar_header(wanted, MANY))
    _flood(OUT, bytes(BLOCK))


BEHAVIOURS: dict[str, Behaviour] = {
    one.__name__.replace("_", "-"): one
    for one in (
        hang,
        deaf,
        drip,
        drip_payload,
        flood_stderr,
        flood_lines,
        flood_stdout,
        flood_payload,
        flood_answers,
        long_answer,
        garbage_result,
        exited_256,
        exited_huge,
        garbage,
        more_than_named,
        less_than_named,
        slowly,
        close_early,
        close_after_mark,
        huge_listing,
        wide_listing,
        sized_listing,
        pax_bomb,
        name_bomb,
        small_headers,
        strange_members,
        fat_member,
    )
}
"""Every way in which a host here misbehaves; `honest` is none of them."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """A forced command. `switch` says how it behaves; the host itself sees it at `there`."""

    switch: Path
    there: str
    program: str

    @property
    def forced(self) -> str:
        """The line of sshd_config."""
        return f"ForceCommand exec {self.program} {shlex.quote(self.there)}"

    def turn(self, name: str, *verbs: str) -> None:
        """Behave so from the next request on: for these verbs, or for every command."""
        assert name in BEHAVIOURS, name
        self._say(f"{name} {' '.join(verbs)}".strip())

    def reform(self) -> None:
        """Be honest again, for new requests."""
        self._say("honest")

    def _say(self, text: str) -> None:
        new = self.switch.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o644)
        new.replace(self.switch)


@dataclass(frozen=True, kw_only=True)
class HostileHost:
    """A plain sshd, and its login."""

    sshd: Sshd
    login: Login


def login(folder: Path) -> Login:
    """Return the login of a host on this computer, honest at first; its switch is in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    switch = folder / "behaviour"
    program = shlex.join([sys.executable, "-S", "-E", __file__])
    made = Login(switch=switch, there=str(switch), program=program)
    made.reform()
    return made


@contextmanager
def host(folder: Path, **options: object) -> Iterator[HostileHost]:
    """Give a plain sshd with such a login; `options` as `Sshd` takes them."""
    from cvl.testing.sshd import Sshd

    made = login(folder / "hostile")
    with Sshd(folder, options=(made.forced,), **options) as sshd:  # type: ignore[arg-type]
        yield HostileHost(sshd=sshd, login=made)


def mount(machine: Machine) -> Login:
    """Give a machine that has booted such a login, and end the connections that it has."""
    folder = machine.disk / "opt"
    shutil.copyfile(__file__, folder / "hostile.py")
    (folder / "hostile.py").chmod(0o644)
    made = Login(
        switch=folder / "behaviour",
        there="/opt/behaviour",
        program=f"{PYTHON} -S -E /opt/hostile.py",
    )
    made.reform()
    script = (
        'echo "$1" >>/run/sshd_config && kill -HUP "$(cat /run/sshd.pid)"; '
        "pkill -f '^sshd[^ ]*: ubuntu' || true"
    )
    machine.run("sh", "-c", script, "sh", made.forced)
    return made


def tar_header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """Return the block before a member's content, its checksum right."""
    number = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    fields = (
        name[:100].ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0" * 2,
        number,
        b"0" * 11 + b"\0",
    )
    block = b"".join(fields) + b" " * 8 + kind + bytes(100) + b"ustar  \0"
    block = block.ljust(TAR_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def read_request(command: str) -> Request:
    """Read a request's head, and not a byte more, if the command is one of ours."""
    if "supervisor.sh" not in command:
        return Request(head=b"", command=command)
    head = b""
    while not head.endswith(b"\n\n") and (byte := os.read(0, 1)):
        head += byte
    lines = head.decode(errors="replace").splitlines()[1:]
    rows = (line.partition(" ") for line in lines if line)
    return Request(head=head, command=command, fields={key: value for key, _, value in rows})


def answer(request: Request) -> int:
    """Do what an honest host does."""
    argv = ["/bin/sh", "-c", request.command]
    if not request.head:
        os.execv(argv[0], argv)
    child = subprocess.Popen(argv, stdin=subprocess.PIPE)
    assert child.stdin
    with suppress(BrokenPipeError):
        child.stdin.write(request.head)
        child.stdin.flush()
        while data := os.read(0, BLOCK):
            child.stdin.write(data)
            child.stdin.flush()
    with suppress(BrokenPipeError):
        child.stdin.close()
    return child.wait()


def main(switch: str) -> int:
    """Be the login: behave as the switch says."""
    name, *verbs = Path(switch).read_text().split()
    behave = BEHAVIOURS.get(name)
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "true")
    if behave and not verbs and name in {"hang", "drip"}:
        behave(Request(head=b"", command=command))  # it would not even read
    request = read_request(command)
    if behave is None or (verbs and request.verb not in verbs):
        return answer(request)
    with suppress(BrokenPipeError):
        behave(request)
    return 0


def _result(request: Request, words: bytes) -> None:
    if request.verb == "follow":
        _put(OUT, request.mark + b"\n")
    _put(ERR, request.mark + b" result " + words + b"\n" + request.mark + b" end\n")


def _put(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _flood(descriptor: int, data: bytes) -> None:
    while True:
        _put(descriptor, data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
