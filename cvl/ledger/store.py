"""The ledger's file: one connection per transaction, and every failure explained.

So no connection is ever shared across a fork or between threads, and each looks at the file
that bears the name now. Opening costs a quarter of a millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cvl.core.errors import LedgerError
from cvl.core.paths import no_file, private
from cvl.core.privacy import unsafe
from cvl.ledger import upkeep
from cvl.ledger.columns import decoded
from cvl.ledger.errors import ELSEWHERE, Damaged, explained, is_damage, is_locked
from cvl.ledger.formats import FORMAT, format_of, raise_format
from cvl.ledger.schema import APPLICATION, TABLES

if TYPE_CHECKING:
    from sqlite3 import Connection

PATIENCE = 30.0
"""Seconds to wait for other processes. A write takes milliseconds: only something stuck lasts."""
STUCK = 1.0
"""The same, once that was in vain: what has to be done without the ledger must not wait again."""

LONGEST = 1 << 24
"""Bytes of one row; a damaged length must not fill the memory."""
STEPS = 100_000
"""Instructions of SQLite's between two looks at the clock: some milliseconds."""
ENOUGH = 10.0
"""Seconds of computing for one transaction. Reading 10,000 runs takes a third of one."""
OUR_TABLES = f"""
SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ({", ".join(map(repr, TABLES))})
"""  # noqa: S608
"""Not a view in their place, whose rows may have no end."""
STRANGE = (ValueError, LookupError, ArithmeticError, MemoryError, RecursionError)
"""What a file that says nonsense makes of us, beside SQLite's own errors."""


class Store:
    """One ledger file, for any number of processes and threads. Holds nothing open."""

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        """`patience` is how many seconds to wait for other processes."""
        self.path = path
        self._patience = patience

    @contextmanager
    def reading(self) -> Iterator[Connection | None]:
        """Give one consistent view, or None where there is no ledger. Creates nothing."""
        with self._explaining("read"):
            if not self._there():
                yield None
                return
            with self._connected() as db, self._as_now(db) as now:
                yield now

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give the only writer's view. Left in peace, all of it is on the disk; else nothing is.

        TRUNCATE rather than DELETE: there `synchronous=FULL` syncs the journal's end as well, so
        that no power cut brings it back to undo what we have already acted on.
        """
        with self._explaining("write"), self._connected() as db:
            db.execute("COMMIT")
            db.execute("PRAGMA journal_mode = TRUNCATE")
            self._raise_format(db)
            db.execute("BEGIN IMMEDIATE")
            self._check(db)
            yield db
            db.execute("COMMIT")

    @contextmanager
    def beginning(self) -> Iterator[Connection]:
        """As `writing`, for a command that starts something new and needs a ledger for it.

        Only this creates a ledger that is missing, and only this moves one aside: one damaged
        beyond doubt; never one that is locked, forbidden, on a full disk or from a newer cvl.
        It raises all the same: to begin a new one is for the next command.
        """
        with self._explaining("create"):
            self._refuse_others()
            if not self._there():
                upkeep.create(self.path.resolve(), self._patience)
        try:
            with self.writing() as db:
                yield db
        except LedgerError as error:
            if is_damage(error.__cause__):
                self._keep_aside(error)
            raise

    def _refuse_others(self) -> None:
        """Raise `LedgerError` where others could change what we do: it says what we connect to."""
        private(self.path.parent)
        if why := unsafe(str(self.path.absolute())):
            hint = "see who has put it there, or set CVL_STATE_DIR to a folder of your own"
            raise LedgerError(f"the ledger {self.path} cannot be trusted: {why}", hint)

    def _keep_aside(self, error: LedgerError) -> None:
        with self._explaining("move aside"):
            kept = upkeep.keep_aside(self.path.resolve(), self._patience, self._damaged)
        if kept is not None:
            raise LedgerError(
                f"{error}. It was kept as {kept.name}, nothing was started",
                "the same command again starts a new ledger; `cvl reap` finds what may still run",
            ) from error

    def _damaged(self) -> bool:
        """Look again, at all of it."""
        import sqlite3

        try:
            with self._connected() as db:
                return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        except (Damaged, sqlite3.Error) as error:
            return is_damage(error)

    def _there(self) -> bool:
        """Unlike with `Path.exists`, a folder that may not be searched is an error."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Give a connection that is reading: what has been checked does not change under it."""
        # Not `mode=ro`: even a reader has to roll back what a killed writer has left.
        path = self.path.resolve()
        if strange := no_file(path):
            raise LedgerError(f"the ledger's {strange} is no file", f"move it, {ELSEWHERE}")
        uri = f"{path.as_uri()}?mode=rw"
        with closing(self._opened(uri)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("BEGIN")
            self._check(db)
            yield db

    def _opened(self, uri: str) -> Connection:
        import sqlite3

        db = sqlite3.connect(uri, uri=True, timeout=self._patience, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.text_factory = decoded
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        db.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 0)  # one match may last for ever
        db.set_progress_handler(_over(ENOUGH), STEPS)
        db.execute("PRAGMA trusted_schema = OFF")  # it may have been put there by others
        return db

    @contextmanager
    def _as_now(self, db: Connection) -> Iterator[Connection]:
        """Give what is read in the format of now: of an older file, a copy in memory.

        So who only reads changes nothing, on a full disk or a read-only one as ever.
        """
        if format_of(db) >= FORMAT:
            yield db
            return
        with closing(self._opened("file::memory:")) as copy:
            db.backup(copy)
            copy.execute("PRAGMA foreign_keys = OFF")
            raise_format(copy)
            yield copy

    def _raise_format(self, db: Connection) -> None:
        """Bring a file of an older format to that of now: who is killed meanwhile has done nothing.

        An older cvl that goes on beside us is told so, and does without the ledger.
        """
        if format_of(db) >= FORMAT:
            return
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("BEGIN IMMEDIATE")
        self._check(db)
        raise_format(db)
        db.execute("COMMIT")
        db.execute("PRAGMA foreign_keys = ON")

    def _check(self, db: Connection) -> None:
        """SQLite takes an empty file, and one cut within its last page, for sound: we do not."""
        pages, size, application = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "page_size", "application_id")
        )
        if self.path.stat().st_size < size * max(pages, 1):
            raise Damaged("it is cut short")
        if application != APPLICATION:
            raise LedgerError(f"{self.path} is a database, but not cvl's", f"move it, {ELSEWHERE}")
        if (there := format_of(db)) > FORMAT:
            raise LedgerError(
                f"the ledger {self.path} was written by a newer cvl (format {there},"
                f" this one knows {FORMAT})",
                "upgrade cvl; the file was not touched",
            )
        if db.execute(OUR_TABLES).fetchone()[0] < len(TABLES):
            raise Damaged("its tables are not there, or are something else")

    @contextmanager
    def _explaining(self, verb: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            import sqlite3

            if isinstance(error, (Damaged, sqlite3.Error, OSError, *STRANGE)):
                if is_locked(error):
                    self._patience = min(self._patience, STUCK)
                raise explained(verb, self.path, error) from error
            raise


def _over(seconds: float) -> Callable[[], bool]:
    """Return what stops a statement that would not end. Waiting for a lock does not count."""
    until = time.thread_time() + seconds
    return lambda: time.thread_time() > until
