"""The errors of lsi_ray.

    LsiError                 has a stable `code`, a message for people, and pickles (Ray moves it between processes)
    ├── ConfigError          the command or the configuration is wrong
    ├── ArchiveError         the archive as a whole is refused; `offset` is the byte where it broke
    ├── BatchRefused         validation refused the batch; `findings` holds every reason
    ├── RowError             one request cannot be answered; becomes a line of error.jsonl
    ├── StorageError         bytes could not be read or written; `transient` says whether a retry may help
    ├── LedgerError          the ledger refused: a stale lease, an undeclared transition, a taken work dir
    └── EngineError          the engine died or could not start; ends the attempt, not the row

Messages name the row, the file and the value. They never hold the query of a URL: URLs travel as `SecretUrl`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class LsiError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__)


def _rebuild(kind: type[LsiError], state: dict[str, Any]) -> LsiError:
    """Unpickle without calling `__init__`, whose signature differs by subclass."""
    error = kind.__new__(kind, state["code"], state["message"])
    error.args = (state["code"], state["message"])
    error.__dict__.update(state)
    return error


class ConfigError(LsiError, ValueError):
    def __init__(self, message: str, code: str = "invalid_config") -> None:
        super().__init__(code, message)


class ArchiveError(LsiError, ValueError):
    """The archive is truncated, corrupt, hostile, or not an archive. `offset` counts bytes of the file as given."""

    def __init__(self, code: str, message: str, offset: int | None = None) -> None:
        super().__init__(code, message if offset is None else f"{message} (at byte {offset})")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that validation found: `line` is the 1-based line of jobs.jsonl, `param` the field at fault."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchRefused(LsiError, ValueError):
    def __init__(self, findings: list[Finding]) -> None:
        first = findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(first.code, first.message + more)
        self.findings = findings


class RowError(LsiError, ValueError):
    """One row's failure, in the shape of an error line.

    With a `status` it is an HTTP-like failure (`response.body.error`), without one a non-HTTP failure
    (`response: null`, `error.code`), as OpenAI's Batch API draws the line.
    """

    def __init__(
        self, code: str, message: str, *, param: str | None = None, status: int | None = 400, line: int | None = None
    ) -> None:
        super().__init__(code, message)
        self.param = param
        self.status = status
        self.line = line


class StorageError(LsiError, OSError):
    def __init__(self, code: str, message: str, *, transient: bool = False) -> None:
        super().__init__(code, message)
        self.transient = transient


class LedgerError(LsiError):
    pass


class EngineError(LsiError):
    def __init__(self, message: str, code: str = "engine_dead") -> None:
        super().__init__(code, message)
