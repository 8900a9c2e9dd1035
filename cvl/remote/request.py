"""The command that every request to a machine is: a constant, loaded without anything else.

So a connection can be made with it before it is known what to ask (`OpenSSH.get_ready`).
"""

from __future__ import annotations

BASE = 'base=${base:-$HOME/.cvl}; case $base in "~/"*) base=$HOME/${base#"~/"};; esac; '
WORDS = (
    f"read -r lib base; {BASE}file=$base/lib/$lib/supervisor.sh; "
    'test -r "$file" && exec sh "$file" "$base" "$lib"; '
    'read -r key nonce; echo "cvl:$nonce need lib $lib" >&2; exit 1'
)
REQUEST = ("sh", "-c", WORDS)
"""What every request is. No user data is in it; no single quote and no newline either."""
