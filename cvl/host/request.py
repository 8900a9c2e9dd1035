"""The commands that a machine is asked to run: constants, loaded without anything else.

So a connection can be made with one before it is known what to ask (`OpenSSH.get_ready`).

What is asked comes on standard input, of which a start-up file of the login shell may have read
lines before us, or which another shell may take for commands. So it begins with `PREFACE`: lines
that may be lost, and that end any shell; then `cvl NONCE WORD REST`, which nothing else is.
"""

from __future__ import annotations

PREFACE = b"exit 75\n" * 16
"""What is read in our stead, by mistake."""
SHELL = 75
"""The exit status of a shell that ran the preface."""
DEAF = b"cvl:- deaf"
"""What a command of ours says on stderr when nothing is left of what we sent."""
OURS = b"n=0; while read"
"""What all commands of ours begin with, and nothing that one says."""

_OPEN = (
    "n=0; while read -r word nonce lib base && case $word in cvl) false;; esac && "
    'test "$n" -lt 20; '
    "do n=$((n + 1)); done; "
    'test "$word" = cvl || { echo "cvl:-" deaf >&2; exit 1; }; '
)
_BASE = 'base=${base:-$HOME/.cvl}; case $base in "~/"*) base=$HOME/${base#"~/"};; esac; '

WORDS = (
    f"{_OPEN}{_BASE}file=$base/lib/$lib/supervisor.sh; "
    'test -r "$file" && exec sh "$file" "$base" "$lib"; '
    'echo "cvl:$nonce need lib $lib" >&2; exit 1'
)
REQUEST = ("sh", "-c", WORDS)
"""What every request is. No user data is in it; no single quote and no newline either."""

_EVAL = (
    'script=$(dd bs=1 count="$lib" 2>/dev/null); printf "cvl:%s\\n" "$nonce"; eval "$script"; '
    'printf "\\000cvl:%s end\\n" "$nonce"; echo "cvl:$nonce end payload" >&2'
)
SCRIPT = ("sh", "-c", f"{_OPEN}{_BASE}{_EVAL}")
"""What all that needs none of our files is: the script's bytes are counted by the word, and it
comes first of what follows. dd, because sh and head may read past its end."""
