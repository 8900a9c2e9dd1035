"""The command `cvl`: `--version` without loading anything, the rest by `cvl.cli`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; return its exit code."""
    if sys.argv[1:] == ["--version"]:
        from cvl import __version__

        sys.stdout.write(f"cvl {__version__}\n")
        return 0
    try:
        from cvl.cli import main as cli

        return cli(sys.argv[1:])
    except KeyboardInterrupt:  # while it loads
        return 130


if __name__ == "__main__":
    sys.exit(main())
