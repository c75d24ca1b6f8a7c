"""The machine: system, memory, shared memory, open files, disks, ports, clock."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from lsi_ray.doctor.check import Check, failed, ok, warning

GB = 10**9
# A batch of 5 GB stages its input and holds its answers; below the second figure not even a small one fits.
_DISK_GOOD, _DISK_LEAST = 20 * GB, 2 * GB
_DISK_FULL = 0.95  # Ray stops making objects there (RAY_local_fs_capacity_threshold)
_FILES_GOOD = 65_536  # Ray's own advice: a node of many workers holds thousands of sockets
_SHM_SHARE = 0.3  # of memory, that Ray takes for its object store
_CLOCK_UNKNOWN = 5  # adjtimex: TIME_ERROR, the clock is not synchronised
_TIMEX_BYTES = 208


def system(python: tuple[int, int] = sys.version_info[:2], name: str = sys.platform) -> Check:
    found = f"{platform.system()} {platform.release()}, Python {python[0]}.{python[1]}"
    if name != "linux":
        return failed("system", found, "lsi_ray runs on Linux: use a container or a virtual machine")
    if not (3, 11) <= python < (3, 14):
        return failed("system", found, "install Python 3.11, 3.12 or 3.13: vLLM has no wheels for others")
    return ok("system", found)


def memory(total: int, shared: int) -> Check:
    """`shared`: bytes of /dev/shm, where Ray keeps what travels between its workers."""
    found = f"{total / GB:,.0f} GB, of which /dev/shm may take {shared / GB:,.1f} GB; {os.cpu_count()} cores"
    if shared < min(_SHM_SHARE * total, 10 * GB):
        advice = "Ray falls back to a slow disk: start the container with --shm-size=30% of the memory, at most 10 GB"
        return warning("memory", found, advice)
    return ok("memory", found)


def memory_here() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shared = shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 0
    return memory(total, shared)


def open_files(limit: int | None = None) -> Check:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if limit is None else limit
    if 0 <= limit < _FILES_GOOD:
        advice = f"`ulimit -n {_FILES_GOOD}` before the command, or --ulimit nofile={_FILES_GOOD} for a container"
        return warning("open files", f"at most {limit:,}", advice)
    return ok("open files", "no limit" if limit < 0 else f"at most {limit:,}")


def disk(
    name: str, folder: Path, advice: str, usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage
) -> Check:
    """Room and the right to write in a folder, or in what it would be made in."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    total, _, free = usage(there)
    found = f"{folder}: {free / GB:,.1f} of {total / GB:,.0f} GB free"
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return failed(name, f"{folder}: {error.strerror}", f"make it writable; {advice}")
    if free < _DISK_LEAST:
        return failed(name, found, f"make room; {advice}")
    if free < _DISK_GOOD or free < (1 - _DISK_FULL) * total:
        return warning(name, found, f"a batch of 5 GB may not fit; {advice}")
    return ok(name, found)


def port(number: int, use: str, host: str = "127.0.0.1") -> Check:
    """Whether it is free to listen on, for `use`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            advice = f"something listens there (`ss -ltnp | grep {number}`); {use} needs another: --port"
            return warning(f"port {number}", f"{use}: {error.strerror}", advice)
    return ok(f"port {number}", f"free, for {use}")


def clock(state: int | None = None) -> Check:
    """Whether the kernel is told the time by somebody. Signed URLs are refused where clocks differ by 15 minutes."""
    state = _adjtimex() if state is None else state
    advice = "run chrony or systemd-timesyncd on the host; or --storage, which compares with the clock of a storage"
    if state == _CLOCK_UNKNOWN:
        return warning("clock", "the kernel says that nothing keeps it right", advice)
    if state < 0:
        return warning("clock", "the kernel does not say whether it is kept right", advice)
    return ok("clock", "kept right by the system")


def _adjtimex() -> int:
    """Read only: all modes zero."""
    call = getattr(ctypes.CDLL(None), "adjtimex", None)
    return -1 if call is None else int(call(ctypes.create_string_buffer(_TIMEX_BYTES)))
