"""What OpenSSH's last words mean. They are the same in every locale and since many versions."""

from __future__ import annotations

import re

from cvl.core.errors import (
    AuthError,
    CvlError,
    HostError,
    HostKeyError,
    MissingTool,
    NotConnected,
    NotReady,
    Unreachable,
    UsageError,
)

KNOWN_HOSTS_HINT = (
    "connect once with ssh and compare the fingerprint, or pass --accept-new-host-key"
)
CHANGED_HINT = (
    "somebody may be listening in; if you know that the host was reinstalled, forget its old key: "
)
KEY_HINT = (
    "see that the host has your public key (ssh-copy-id); a key with a passphrase needs ssh-add"
)

CONNECTION_ENDED = 255
"""What ssh ends with when it was not the command that ended."""

UNRUN = frozenset({126, 127})
"""What sh ends with when it cannot run a program."""
LAST = 3
"""Lines of ssh's that are shown."""

Rule = tuple[str, type[CvlError], str, str]

RULES: tuple[Rule, ...] = (
    # words of ssh, the error, what to say of {where}, what to do now
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY",
        HostKeyError,
        "the host key of {where} has changed",
        CHANGED_HINT,
    ),
    (
        r"Host key verification failed|No \S+ host key is known for",
        HostKeyError,
        "the host key of {where} is not known",
        KNOWN_HOSTS_HINT,
    ),
    (
        r"UNPROTECTED PRIVATE KEY FILE|Permissions \d+ for .* are too open",
        AuthError,
        "others can read the private key for {where}, so ssh does not use it",
        "chmod 600 the key file",
    ),
    (
        r"Load key .*: (?!Permission denied)",
        AuthError,
        "the private key for {where} cannot be read",
        "a key with a passphrase needs ssh-add; a file that ends with .pub is not the private one",
    ),
    (
        r"Too many authentication failures",
        AuthError,
        "{where} was offered too many wrong keys",
        "name the right one: --ssh-key-path FILE, or IdentityFile and IdentitiesOnly in ssh_config",
    ),
    (
        r"Permission denied \([a-z,-]*\)",
        AuthError,
        "Authentication failed: {where} refused us",
        KEY_HINT,
    ),
    (
        (
            r"Bad configuration option|Bad owner or permissions on|Can't open user config file|"
            r"terminating, \d+ bad configuration|[Mm]issing argument|[Uu]nsupported option"
        ),
        UsageError,
        "ssh cannot use its configuration",
        "",
    ),
    (
        r"Unable to negotiate with",
        HostError,
        "{where} and this machine's ssh have no common way to encrypt",
        "update OpenSSH on the older of the two, or see the legacy options in man ssh_config",
    ),
    (
        (
            r"OpenSSL version mismatch|error while loading shared|symbol lookup error|exec: ssh: |"
            r"[Ee]xec format error|No user exists for uid|You don't exist"
        ),
        MissingTool,
        "the ssh of this machine does not work",
        "does `ssh -V` work here? Reinstall openssh-client",
    ),
    (
        (
            r"remote username contains invalid|hostname contains invalid|[Bb]ad stdio forwarding|"
            r"ControlPath too long|too long for Unix domain socket|percent_expand|vdollar_percent"
        ),
        UsageError,
        "ssh cannot use what it is given for {where}",
        "see the host's name and user, and what your ssh_config says of it: `ssh -G HOST`",
    ),
    (
        (
            r"(?i)account (?:has|is) (?:been )?(?:expired|locked|disabled|not available)|"
            r"password has expired|password change required|not allowed because"
        ),
        AuthError,
        "{where} lets nobody in by this account",
        "log in with ssh and see, or ask who runs that machine",
    ),
    (
        (
            r"Session open refused by peer\s+Failed to connect to new control master|"
            r"open failed: (?:administratively prohibited|unknown channel type|resource shortage)|"
            r"stdio forwarding failed|(?:exec|shell) request failed on channel"
        ),
        NotReady,
        "{where} lets us in, and then opens no session",
        "see MaxSessions and PermitOpen in its sshd_config, and in that of a jump host",
    ),
    (
        r"Could not resolve hostname",
        NotConnected,
        "no such host: {where}",
        "check the spelling, your ssh_config and the network's name service",
    ),
    (
        r"Connection refused",
        NotConnected,
        "{where} refused the connection",
        "is sshd running there, and is this the right port?",
    ),
    (
        r"No route to host|Network is unreachable|Host is down",
        NotConnected,
        "no route to {where}",
        "check your network or VPN, and that the machine is on",
    ),
    (
        r"timed out during banner exchange|Timeout before authentication",
        NotConnected,
        "{where} takes connections but does not answer",
        "its sshd hangs, or something else listens on that port",
    ),
    (
        r"connect to host .* [Tt]imed out",
        NotConnected,
        "{where} does not answer",
        "check that the machine is on and that no firewall is in the way",
    ),
    (
        r"connect to (?:host|address) .*: ",
        NotConnected,
        "there is no way to {where}",
        "check your network, VPN and firewall",
    ),
    (
        r"kex_exchange_identification|banner exchange|banner line|protocol version",
        Unreachable,
        "{where} hangs up before it has said who it is",
        (
            "its sshd may be too busy (MaxStartups) or refuse this address, or what listens there "
            "is no sshd"
        ),
    ),
    (
        r"[Tt]imed out|Timeout, server .* not responding",
        Unreachable,
        "{where} does not answer",
        "check that the machine is on and that no firewall is in the way",
    ),
    (
        (
            r"reset by|Connection closed by|closed by remote host|Broken pipe|"
            r"Shared connection to .* closed|Received disconnect|Disconnected from"
        ),
        Unreachable,
        "the connection to {where} was cut",
        "",
    ),
)


def verdict(where: str, stderr: bytes) -> CvlError | None:
    """Return the error that ssh's words on `stderr` stand for, None if they are not known."""
    text = stderr.decode(errors="replace")
    for pattern, kind, message, hint in RULES:
        if match := re.search(pattern, text):
            line = _last(text) if kind is Unreachable else _line_of(text, match.start())
            detail = "" if kind is HostKeyError else f" ({line})"
            return kind(message.format(where=where) + detail, hint + _forget(text, hint))
    return None


def lost(where: str, code: int, stderr: bytes) -> CvlError | None:
    """Judge a finished ssh: 255 or its own death is the connection's end, whatever was said.

    So are a shell's 126 and 127, if it is ssh that could not be run. A job killed by a signal ends
    with 255 as well: never take a job's status from here.
    """
    if code in UNRUN and b"exec: ssh: " in stderr:
        return verdict(where, stderr)
    if 0 <= code < CONNECTION_ENDED:
        return None
    known = verdict(where, stderr)
    if known is not None:
        return known
    words = _last(stderr.decode(errors="replace"))
    if code < 0:
        words = "; ".join(filter(None, (words, f"ssh here was ended by {_signal(-code)}")))
    said = f" ({words})" if words else ""
    hint = "" if words else "`ssh -v HOST true` may say why"
    return Unreachable(f"the connection to {where} ended{said}", hint)


def _last(text: str) -> str:
    """Return ssh's last words: what it runs (a `ProxyCommand`) says why before it does."""
    lines = [_clean(line).strip() for line in text.strip().splitlines()]
    return "; ".join(filter(None, lines[-LAST:]))


def _signal(number: int) -> str:
    from signal import Signals

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def _line_of(text: str, at: int) -> str:
    start = text.rfind("\n", 0, at) + 1
    return _clean(text[start:].partition("\n")[0])


def _clean(line: str) -> str:
    """Keep a stranger's words short and off the terminal's control codes."""
    return re.sub(r"[^\x20-\x7e]", "", line)[:200]


def _forget(text: str, hint: str) -> str:
    """Return ssh's own advice on how to forget a changed key, or ours."""
    if hint is not CHANGED_HINT:
        return ""
    match = re.search(r"ssh-keygen -f .*-R .*", text)
    return _clean(match[0]) if match else "ssh-keygen -R HOST"
