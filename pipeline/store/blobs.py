"""Bytes by digest: written once, never changed."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, exists, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.errors import UsageError
from pipeline.store.tables import Base, BlobRow, DocumentRow, EvidenceRow, PageRow


def table(row: type[Base]) -> Table:
    """The table of a model."""
    found = row.__table__
    if not isinstance(found, Table):
        raise TypeError(f"{row.__name__} has no table of its own")
    return found


def insert_new(connection: Connection, row: type[Base], values: list[dict[str, Any]]) -> None:
    """Insert rows, leaving alone those whose unique key is there already."""
    if not values:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(insert(table(row)).on_conflict_do_nothing(), values)


def insert_one(connection: Connection, row: type[Base], values: dict[str, Any]) -> bool:
    """Insert a row unless its unique key is there already; say whether it was inserted."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    # RETURNING yields a row only where one was inserted; the drivers' row counts do not agree about conflicts.
    statement = insert(table(row)).values(values).on_conflict_do_nothing().returning(*table(row).primary_key)
    return connection.execute(statement).first() is not None


def put_blob(connection: Connection, content: bytes, media_type: str) -> str:
    """Store bytes unless they are there; return their digest."""
    sha256 = hashlib.sha256(content).hexdigest()
    if connection.scalar(select(BlobRow.sha256).where(BlobRow.sha256 == sha256)) is None:
        row = {"sha256": sha256, "byte_count": len(content), "media_type": media_type, "content": content}
        insert_new(connection, BlobRow, [row])
    return sha256


def is_used() -> ColumnElement[bool]:
    """Whether anything refers to a blob's bytes."""
    return or_(
        exists(select(DocumentRow.sha256).where(DocumentRow.blob_sha256 == BlobRow.sha256)),
        exists(select(PageRow.id).where(PageRow.raster_blob == BlobRow.sha256)),
        exists(select(EvidenceRow.id).where(EvidenceRow.crop_sha256 == BlobRow.sha256)),
    )


def get_blob(connection: Connection, sha256: str) -> bytes:
    """Return stored bytes.

    Raises:
        UsageError: Nothing is stored under this digest.
    """
    content = connection.scalar(select(BlobRow.content).where(BlobRow.sha256 == sha256))
    if content is None:
        raise UsageError(f"nothing is stored under sha256 {sha256}")
    return content
