"""A filter (seccomp) that leaves a process the system calls of computing, and takes those that reach anything else.

No file, socket, process or signal to others, no executable memory; a refused call fails with EPERM. Needs no library:
the filter is the kernel's small byte code, written out here. Numbers are from the kernel's tables of system calls.
"""

from __future__ import annotations

import ctypes
import os
import struct

# Memory, waiting, clocks, the descriptors that are open already, and the end.
_X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13,
    "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35,
    "getpid": 39, "sendto": 44, "recvfrom": 45, "exit": 60, "gettimeofday": 96, "getrusage": 98, "sigaltstack": 131,
    "gettid": 186, "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228,
    "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "getrandom": 318, "membarrier": 324, "rseq": 334,
}  # fmt: skip
_AARCH64 = {
    "read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "munmap": 215, "brk": 214, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigreturn": 139, "sched_yield": 124, "mremap": 216, "madvise": 233, "nanosleep": 101,
    "getpid": 172, "sendto": 206, "recvfrom": 207, "exit": 93, "gettimeofday": 169, "getrusage": 165,
    "sigaltstack": 132, "gettid": 178, "futex": 98, "sched_getaffinity": 123, "restart_syscall": 128,
    "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94, "getrandom": 278,
    "membarrier": 283, "rseq": 293,
}  # fmt: skip
# Machine: its audit number, the calls, and mmap and mprotect, which are allowed but for executable memory.
_MACHINES = {
    "x86_64": (0xC000003E, _X86_64, (9, 10)),
    "aarch64": (0xC00000B7, _AARCH64, (222, 226)),
}

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # 1 is EPERM
_PROT_EXEC = 4
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def confine() -> bool:
    """False where the kernel has no such filters, or the machine is neither x86-64 nor ARM64. Cannot be undone."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    code = _program(*machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(header), 0, 0) == 0)


def _program(audit: int, calls: dict[str, int], memory: tuple[int, int]) -> bytes:
    """Offsets of jumps count from the next instruction. seccomp_data: number at 0, machine at 4, arguments from 16."""
    allowed = sorted(calls.values())
    # Behind the list stand: refuse, allow, and the look at mmap's third argument.
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    steps += [(_EQUAL, len(allowed) + 3 - i, 0, number) for i, number in enumerate(memory)]
    steps += [(_EQUAL, len(allowed) - i, 0, number) for i, number in enumerate(allowed)]
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    steps += [(_LOAD, 0, 0, 32), (_ANY_BIT, 0, 1, _PROT_EXEC), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
