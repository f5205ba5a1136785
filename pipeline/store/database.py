"""The engine behind the store: connections, transactions, the database's clock, its schema revision."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import URL, Connection, Engine, Row, Select, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft

from pipeline.errors import InternalError, StoreUnavailable, UsageError

T = TypeVar("T")
AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"
AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"

BUSY_SECONDS = 30  # how long a SQLite writer waits for another; PostgreSQL's lock_timeout below is the same
CONNECT_SECONDS = 5
TRIES = 5  # of a transaction that lost a deadlock or serialization race; whole transactions only
_LOST_RACE = {"40001", "40P01"}  # serialization_failure, deadlock_detected
_ADVICE = {
    "SQLITE_BUSY": "Another program has been writing to it for long. Try again; what was finished is stored.",
    "SQLITE_FULL": "Free some space; the same command goes on from there.",
    "SQLITE_READONLY": "Its file and folder must be writable; copy it, or name another with --db.",
    "SQLITE_CANTOPEN": "Its folder must exist and be writable; or name another file with --db.",
    "SQLITE_CORRUPT": "Restore it from a copy, or name another file with --db.",
    "SQLITE_NOTADB": "Name a database of Exhibit's, or a file that does not exist yet, with --db.",
}
_POSTGRES_OPTIONS = "-c idle_in_transaction_session_timeout=60000 -c lock_timeout=30000 -c timezone=UTC"


def parse_url(url: str) -> URL:
    """Return the URL with the driver we ship for its database.

    Raises:
        UsageError: It is no URL of a database that we support.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise UsageError("--db is no database URL; expected e.g. sqlite:///exhibit.db or postgresql://…") from exc
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise UsageError("--db sqlite: needs a file, e.g. sqlite:///exhibit.db")
        return parsed.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise UsageError(f"--db {masked(parsed)}: expected sqlite or postgresql, got {backend}")


def masked(url: URL) -> str:
    """The URL as it may be shown: no password, neither in its place nor among the options, and no driver."""
    hidden = {key: "***" for key in url.query if "pass" in key.lower()}
    shown = url.set(drivername=url.get_backend_name()).update_query_dict(hidden)
    return shown.render_as_string(hide_password=True)


def build_engine(url: URL) -> Engine:
    """Return an engine with the settings that durability and concurrency rest on. Nothing is opened yet."""
    if url.get_backend_name() == "sqlite":
        file = Path(str(url.database))
        if _read_only(file):
            engine = create_engine(url, creator=lambda: _connect_read_only(file))
        else:
            engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
            event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    connect_args = {"connect_timeout": CONNECT_SECONDS, "application_name": "exhibit", "options": _POSTGRES_OPTIONS}
    return create_engine(url, pool_pre_ping=True, connect_args=connect_args)


def _read_only(file: Path) -> bool:
    """Whether a file can only be looked at, as on read-only media: not even locked."""
    return file.exists() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def _connect_read_only(file: Path) -> sqlite3.Connection:
    # Without a write-ahead log nobody has it open, and on media none could be set up; with one, its owner is at work.
    immutable = "" if file.with_name(f"{file.name}-wal").exists() else "&immutable=1"
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro{immutable}", uri=True, isolation_level=None)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # None: the driver begins nothing by itself, so that our BEGIN IMMEDIATE is the only one.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last commits when the power fails
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that first reads and then writes fails at once when another writer came between.
    write = connection.get_execution_options().get("exhibit_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def storage_folder(url: str) -> Path:
    """The folder whose disk this machine fills: a SQLite file's, or, with a server elsewhere, that of temporary files."""
    parsed = parse_url(url)
    return (
        Path(str(parsed.database)).resolve().parent if parsed.get_backend_name() == "sqlite" else Path(tempfile.gettempdir())
    )


class Database:
    """Transactions on one database; turns its errors into ours.

    Attributes:
        url: Masked, for messages.
        sqlite: Whether it is SQLite.
    """

    def __init__(self, url: str) -> None:
        parsed = parse_url(url)
        self.url = masked(parsed)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self.file = Path(str(parsed.database)) if self.sqlite else None
        self._engine = build_engine(parsed)
        self._inode: int | None = None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database and writes nothing."""
        self._require_same_file()
        level = {} if self.sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._errors(), self._engine.connect() as connection:
            connection.execution_options(**level)
            with connection.begin():
                yield connection

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and commit it; again from the start when it lost a race to another.

        Raises:
            StoreUnavailable: The database cannot be used now; nothing was written.
        """
        for attempt in range(TRIES):
            self._require_same_file()
            try:
                with self._errors(), self._engine.connect() as connection:
                    connection.execution_options(exhibit_write=True)
                    with connection.begin():
                        return work(connection)
            except _LostRace:
                time.sleep(0.02 * 2**attempt)
        raise StoreUnavailable(f"{self.url}: lost {TRIES} races with other writers; nothing was written. Try again.")

    def _require_same_file(self) -> None:
        """SQLite goes on writing to a file that was deleted, and everything would be lost with the process."""
        if self.file is None:
            return
        try:
            inode = self.file.stat().st_ino
        except OSError:
            inode = None
        if self._inode is not None and inode != self._inode:
            state = "was deleted" if inode is None else "was replaced by another file"
            raise StoreUnavailable(f"{self.url} {state} while it was in use; what was stored in it is gone with it")
        self._inode = inode

    def empty_log(self) -> None:
        """Empty SQLite's write-ahead log, which keeps what was deleted until it is written over."""
        if self.sqlite:
            with self._errors(), self._engine.connect() as connection:
                driver = connection.connection.driver_connection
                if driver is not None:
                    driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as exc:
            if getattr(exc.orig, "sqlstate", None) in _LOST_RACE:
                raise _LostRace(f"{self.url}: {_reason(exc)}") from exc
            raise StoreUnavailable(f"{self.url}: {_reason(exc)}") from exc
        except NoConnectionLeft as exc:
            raise StoreUnavailable(f"{self.url}: {exc}") from exc
        except DBAPIError as exc:
            # A bare DatabaseError is no complaint about a statement: the file is damaged, or no database at all.
            if exc.connection_invalidated or type(exc) is DatabaseError:
                raise StoreUnavailable(f"{self.url}: {_reason(exc)}") from exc
            raise InternalError(f"{self.url}: {type(exc).__name__}: {_reason(exc)}") from exc


class _LostRace(StoreUnavailable):
    """The database chose another transaction over ours and rolled ours back."""


def _reason(exc: DBAPIError) -> str:
    # The driver's own words, without SQLAlchemy's statement and parameters: these may hold the text of answers.
    lines = str(exc.orig).strip().splitlines()
    reason = lines[0] if lines else type(exc.orig).__name__
    code = "_".join(getattr(exc.orig, "sqlite_errorname", "").split("_")[:2])  # SQLITE_READONLY_DIRECTORY is SQLITE_READONLY
    return f"{reason}. {_ADVICE[code]}" if code in _ADVICE else reason


def clock(connection: Connection) -> datetime:
    """The time by the database's clock, the only one that leases are measured by."""
    if connection.dialect.name == "sqlite":
        stamp = connection.scalar(text("SELECT strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"))
        return datetime.fromisoformat(str(stamp))
    now = connection.scalar(select(func.clock_timestamp()))
    return cast("datetime", now).astimezone(UTC)
