"""`lsi token`: the tokens of a service, in its work dir; also while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsi_ray.config import cache_folder
from lsi_ray.errors import ConfigError, LedgerError
from lsi_ray.ledger.service_ledger import Accounts
from lsi_ray.ledger.service_records import Token
from lsi_ray.ledger.tokens import SCOPES
from lsi_ray.ledger.workdir import WorkDir


def create_command(
    work_dir: Path | None, caller: str, name: str, scopes: str, expires_s: float | None, as_json: bool
) -> int:
    wanted = tuple(scopes.replace(",", " ").split())
    if not wanted or not set(wanted) <= set(SCOPES):
        raise ConfigError(f"--scopes {scopes!r}: give {' or '.join(SCOPES)}, or both")
    with _accounts(work_dir) as accounts:
        expires_at = time.time() + expires_s if expires_s is not None else None
        token, text = accounts.create(caller, name=name, scopes=wanted, expires_at=expires_at)
    print(json.dumps({**asdict(token), "token": text}) if as_json else text)
    return 0


def list_command(work_dir: Path | None, as_json: bool) -> int:
    with _accounts(work_dir) as accounts:
        tokens = accounts.list()
    if as_json:
        print(json.dumps([asdict(token) for token in tokens]))
        return 0
    table = Table("id", "caller", "name", "scopes", "created", "state", box=None, padding=(0, 2, 0, 0))
    for token in tokens:
        created = time.strftime("%Y-%m-%d", time.localtime(token.created_at))
        scopes = " ".join(token.scopes)
        table.add_row(token.token_id, escape(token.caller), escape(token.name), scopes, created, _state(token))
    Console(highlight=False).print(table)
    return 0


def revoke_command(work_dir: Path | None, token_id: str) -> int:
    with _accounts(work_dir) as accounts:
        try:
            accounts.revoke(token_id)
        except LedgerError as error:
            raise ConfigError(f"{error}; lsi token list shows them") from error
    print(f"revoked {token_id}; replicas of the API notice within 5 s")
    return 0


def _state(token: Token) -> str:
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is None:
        return "valid"
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(token.expires_at))
    return f"expired {until}" if token.expires_at <= time.time() else f"valid until {until}"


@contextmanager
def _accounts(work_dir: Path | None) -> Iterator[Accounts]:
    work = WorkDir((work_dir or cache_folder() / "service").absolute()).create()
    accounts = Accounts(work.ledger)
    try:
        yield accounts
    finally:
        accounts.close()
