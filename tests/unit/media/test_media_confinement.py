"""What the child may still do once it has given up its rights, tried from inside."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from lsi_ray.media import system_calls
from lsi_ray.media.exchange import ChildDied, Filled
from lsi_ray.media.exchange import report as parsed
from lsi_ray.media.window import Frames, Inlet, Outlet, Picture

PROLOGUE = """
import ctypes, mmap, os, resource, signal, socket, subprocess, sys, threading
from lsi_ray.media import confinement
pair = socket.socketpair()
print(confinement.give_up_rights(256 << 20, os.getppid()), flush=True)
"""
# What must fail; the last three only with a filter of system calls.
FORBIDDEN = {
    "open a file": "open('/etc/passwd')",
    "open a file by a call of C": "assert ctypes.CDLL(None).open(b'/etc/passwd', 0) >= 0",
    "write a file": "os.open('/tmp/lsi-media-test', os.O_CREAT | os.O_WRONLY)",
    "make a socket": "socket.socket()",
    "receive a socket": "pair[0].dup()",
    "make memory with a name": "os.memfd_create('x')",
    "start a program": "subprocess.run(['/bin/true'])",
    "much memory": "bytearray(512 << 20)",
    "much shared memory": "mmap.mmap(-1, 512 << 20)",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "be root again": "os.setuid(0)",
    "fork": "os.fork()",
    "signal another process": "os.kill(os.getppid(), 0)",
    "become another program": "os.execv('/bin/true', ['true'])",
    "executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
}
_BY_FILTER_ONLY = ("signal another process", "become another program", "executable memory")


def confined(lines: str, setup: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", setup + PROLOGUE + lines], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("setup", ["", "from lsi_ray.media import system_calls\nsystem_calls._MACHINES.clear()"])
def test_nothing_can_be_reached(setup: str) -> None:
    attempts = "".join(
        f"try:\n    {code}\nexcept (OSError, AssertionError, MemoryError, ValueError):\n    pass\n"
        f"else:\n    print({name!r})\n"
        for name, code in FORBIDDEN.items()
        # Without the filter root could, were it still root: a process of nobody's may not start others either.
        if not (setup and (name in _BY_FILTER_ONLY or (name == "be root again" and os.getuid() != 0)))
    )
    head, *succeeded = confined(attempts, setup).splitlines()
    assert succeeded == []
    assert head == str(not setup and os.uname().machine in ("x86_64", "aarch64"))


def test_computing_is_possible() -> None:
    out = confined(
        "data = bytearray(64 << 20)\npair[0].send(b'hello')\nprint(pair[1].recv(5), len(data), len(os.urandom(4)))\n"
    )
    assert out.splitlines()[1] == "b'hello' 67108864 4"


def test_a_child_whose_parent_is_gone_ends() -> None:
    code = "from lsi_ray.media.confinement import give_up_rights\ngive_up_rights(1 << 20, 1 << 30)\nprint('still here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_filter_is_what_the_kernel_expects() -> None:
    for audit, calls, memory in system_calls._MACHINES.values():
        program = system_calls._program(audit, calls, memory)
        assert len(program) % 8 == 0
        count = len(program) // 8
        for at in range(count):
            code, true, false, _ = struct.unpack_from("=HBBI", program, 8 * at)
            if code in (0x15, 0x45):
                assert at + 1 + max(true, false) < count


WINDOW = np.zeros(2 * 600, np.uint8)


def told(*news: Filled, store: Frames | Picture | None = None) -> Inlet:
    inlet = Inlet(WINDOW, store or Frames(), 10_000)
    for one in news:
        inlet.take(one)
    return inlet


@pytest.mark.parametrize(
    "news",
    [
        [Filled([1, 10, 10, 3], 0, 601)],  # more than a half holds
        [Filled([1, 10, 10, 3], 0, 299)],  # half a row
        [Filled([1, 10, 10, 3], 300, 300)],  # without a beginning
        [Filled([2, 10, 10, 3], 0, 300), Filled([2, 10, 10, 3], 600, 300)],  # a gap
        [Filled([1, 10, 10, 3], 0, 300), Filled([9, 10, 10, 3], 300, 300)],  # another shape
        [Filled([1, 10, 10, 3], 0, 300), Filled([1, 10, 10, 3], 300, 300)],  # more than all
        [Filled([100, 10, 10, 3], 0, 300)],  # more than the limit
        [Filled([1 << 20, 1 << 20, 1 << 30, 3], 0, 300)],
        [Filled([0, 10, 10, 3], 0, 0)],
        [Filled([10, 10, 3], 0, 300)],
        [Filled([1, 10, 10, 4], 0, 400)],
        [Filled([1, 2, 3, 4, 5], 0, 20)],
        [Filled([], 0, 0)],
    ],
)
def test_a_child_that_lies_about_its_frames_is_not_believed(news: list[Filled]) -> None:
    with pytest.raises(ChildDied):
        told(*news)


def test_a_child_that_gives_a_picture_of_no_rows_is_not_believed() -> None:
    with pytest.raises(ChildDied):
        told(Filled([10, 10, 4], 0, 400), Filled([10, 10, 4], 400, 0), store=Picture())


def test_pixels_that_did_not_come_are_missed() -> None:
    frames, picture = Frames(), Picture()
    inlet = told(Filled([2, 10, 10, 3], 0, 300), store=frames)
    with pytest.raises(ChildDied):
        frames.array(2, inlet.bytes)
    assert frames.array(1, inlet.bytes).shape == (1, 10, 10, 3)
    inlet = told(Filled([10, 10, 4], 0, 200), store=picture)
    with pytest.raises(ChildDied):
        picture.whole(inlet.bytes)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b'{"type":"Done"}',
        b'{"type":"Ready","confined":1}',
        b'{"type":"Job","kind":"image","size":1}',
        b'{"type":"Filled","shape":[1,-1],"at":0,"size":1}',
        b'{"type":"Filled","shape":[1.5],"at":0,"size":1}',
        b'{"type":"Refused","code":"completed","message":"x"}',
        b'{"type":"Refused","code":"media_invalid","message":"' + b"x" * 2000 + b'"}',
        b'{"type":"Question","info":{"total_frames":1,"fps":null,"duration":1,"width":1,"height":1}}',
    ],
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        parsed(data)


def test_frames_pass_through_the_window_whatever_their_strides() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 10, 10, 3), np.uint8)
    frames = Frames()
    inlet = Inlet(WINDOW, frames, 10_000)
    waits: list[int] = []
    outlet = Outlet(WINDOW, inlet.take, lambda: waits.append(1))
    outlet.begin((7, 10, 10, 3))
    outlet.put(pixels[0])
    outlet.begin((7, 10, 10, 3))  # in vain
    for frame in pixels:
        outlet.put(np.rot90(frame)[..., ::-1])
    inlet.take(outlet.last())
    assert np.array_equal(frames.array(5, inlet.bytes), np.rot90(pixels, axes=(1, 2))[..., ::-1])
    assert len(waits) == 1  # three halves, of two frames each, the last not waited for
