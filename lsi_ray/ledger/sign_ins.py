"""Sign-ins of the web page: for some hours a browser's cookie stands for a token, which the browser does not keep.

Of a cookie's 256 random bits the ledger keeps a SHA-256. A sign-in is worth what its token is: it ends with it.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3

from lsi_ray.ledger import tokens
from lsi_ray.ledger.service_records import SignIn, Token

MOST = 20
"""Of one token; then the oldest ends."""


def create(db: sqlite3.Connection, token_text: str, lifetime_s: float, now: float) -> SignIn | None:
    """None for a token that is not valid."""
    token = tokens.check(db, token_text, now)
    if token is None:
        return None
    text = secrets.token_urlsafe(32)
    expires_at = min(now + lifetime_s, token.expires_at or float("inf"))
    db.execute("DELETE FROM sign_ins WHERE expires_at <= ?", (now,))
    db.execute("INSERT INTO sign_ins VALUES (?, ?, ?, ?)", (_digest(text), token.token_id, now, expires_at))
    db.execute(
        "DELETE FROM sign_ins WHERE token_id = ?1 AND sha256 NOT IN"
        " (SELECT sha256 FROM sign_ins WHERE token_id = ?1 ORDER BY created_at DESC, rowid DESC LIMIT ?2)",
        (token.token_id, MOST),
    )
    return SignIn(text, token, expires_at)


def check(db: sqlite3.Connection, text: str, now: float) -> Token | None:
    """The token that this sign-in stands for, while both are valid."""
    row = db.execute(
        "SELECT token_id FROM sign_ins WHERE sha256 = ? AND expires_at > ?", (_digest(text), now)
    ).fetchone()
    return tokens.valid(db, row["token_id"], now) if row is not None else None


def end(db: sqlite3.Connection, text: str) -> None:
    db.execute("DELETE FROM sign_ins WHERE sha256 = ?", (_digest(text),))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
