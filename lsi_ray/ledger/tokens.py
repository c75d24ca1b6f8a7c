"""API tokens: `lsi-<id>-<secret>`, of which the ledger keeps the id and a SHA-256.

The secret has 256 random bits, so a fast digest is enough. A connection of its own beside the running service is fine:
SQLite orders the writers, and every look-up reads the table.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.service_records import Token

SCOPES = ("read", "write")


def create(
    db: sqlite3.Connection, caller: str, name: str, scopes: tuple[str, ...], expires_at: float | None, now: float
) -> tuple[Token, str]:
    """The record, and the token itself, which is shown this once."""
    token_id = secrets.token_hex(6)
    text = f"lsi-{token_id}-{secrets.token_urlsafe(32)}"
    token = Token(token_id, caller, name, scopes, now, expires_at, None)
    db.execute(
        "INSERT INTO tokens (token_id, sha256, caller, name, scopes, created_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (token_id, _digest(text), caller, name, " ".join(scopes), now, expires_at),
    )
    return token, text


def check(db: sqlite3.Connection, text: str, now: float) -> Token | None:
    """The token's record if it is known, not revoked and not expired."""
    parts = text.split("-", 2)
    if len(parts) != 3 or parts[0] != "lsi" or not text.isascii():
        return None
    row = db.execute("SELECT * FROM tokens WHERE token_id = ?", (parts[1],)).fetchone()
    if row is None or not hmac.compare_digest(row["sha256"], _digest(text)):
        return None
    return _unless_over(_token(row), now)


def valid(db: sqlite3.Connection, token_id: str, now: float) -> Token | None:
    """For who has shown it before."""
    row = db.execute("SELECT * FROM tokens WHERE token_id = ?", (token_id,)).fetchone()
    return _unless_over(_token(row), now) if row is not None else None


def _unless_over(token: Token, now: float) -> Token | None:
    over = token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now)
    return None if over else token


def select(db: sqlite3.Connection) -> tuple[Token, ...]:
    return tuple(_token(row) for row in db.execute("SELECT * FROM tokens ORDER BY created_at, token_id"))


def revoke(db: sqlite3.Connection, token_id: str, now: float) -> Token:
    db.execute("UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE token_id = ?", (now, token_id))
    row = db.execute("SELECT * FROM tokens WHERE token_id = ?", (token_id,)).fetchone()
    if row is None:
        raise LedgerError("no_such_token", f"no token {token_id!r}")
    return _token(row)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _token(row: sqlite3.Row) -> Token:
    return Token(
        row["token_id"],
        row["caller"],
        row["name"],
        tuple(row["scopes"].split()),
        row["created_at"],
        row["expires_at"],
        row["revoked_at"],
    )
