"""The command `cvl`: `--version` without loading anything, the rest by `cvl.cli`."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line; return its exit code."""
    if sys.argv[1:] == ["--version"]:
        from cvl import __version__

        sys.stdout.write(f"cvl {__version__}\n")
        return 0
    _in_utf8()
    _open_standard_files()
    os.umask(os.umask(0o077) & 0o077)  # a mask that takes our own rights helps nobody
    try:
        from cvl.cli import main as cli
        from cvl.cli.terminal import never_fail_on_encoding
        from cvl.core.secrets import own_process
        from cvl.providers import KEYS

        own_process(KEYS)
        never_fail_on_encoding()
        return cli(sys.argv[1:])
    except KeyboardInterrupt:  # while it loads
        return 130
    except ImportError as error:  # likewise: what goes wrong later, `cli` has explained
        return _not_loaded(error)


def _in_utf8() -> None:
    """Begin again in Python's UTF-8 mode if the locale is another: `core/octets.py` says why."""
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:  # without, `run` says what to do
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def _not_loaded(error: ImportError) -> int:
    """Say which package cvl cannot be without, and how to install it."""
    from cvl.core.extras import understood

    missing = understood(error)
    if missing is None:
        raise error
    sys.stderr.write(f"cvl: {missing}\nhint: {missing.hint}\n")
    return missing.exit_code


def _open_standard_files() -> None:
    """See that 0, 1 and 2 are taken: else the ledger may be opened as 1, and output go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free is this one


if __name__ == "__main__":
    sys.exit(main())
