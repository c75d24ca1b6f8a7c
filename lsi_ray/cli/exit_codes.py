"""What the exit status of every command means."""

from __future__ import annotations

from lsi_ray.errors import ArchiveError, BatchRefused, ConfigError, LsiError, StorageError

OK, FAILED, REFUSED = 0, 1, 2


def exit_code(error: LsiError) -> int:
    if isinstance(error, (ConfigError, ArchiveError, BatchRefused)):
        return REFUSED
    # An input that is not there or not ours to read is a wrong command; a storage that fails is not.
    if isinstance(error, StorageError) and error.code.startswith("input_") and not error.transient:
        return REFUSED
    return FAILED
