"""The process that compiles grammars of strangers. `grammars` starts it by its path; it imports nothing of lsi_ray.

A template imports the compiler once (2 s of CPU) and forks a worker. The worker compiles one grammar after the other
under the kernel's limits on CPU, time and memory; when it dies of one, or of a crash, the template tells the signal and
forks the next one, which takes milliseconds. Frames on stdin and stdout: 4 bytes of length, then JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import time
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("<I")
_GROWN = 3
_Frame = dict[str, Any]


def main() -> None:
    answers = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    import xgrammar

    setup = read_frame(0)
    if setup is None:
        return
    os.dup2(nothing, 2)  # until here the worker's, for a failing start; xgrammar warns about every odd schema
    info = xgrammar.TokenizerInfo.deserialize_json(setup["tokenizer_info"])
    write_frame(answers, {"ready": True})
    while (killed_by := _fork(info, setup, answers)) is not None:
        write_frame(answers, {"signal": killed_by})


def read_frame(descriptor: int) -> _Frame | None:
    """None at the end of the stream."""
    head = _read(descriptor, _LENGTH.size)
    if head is None:
        return None
    body = _read(descriptor, _LENGTH.unpack(head)[0])
    return None if body is None else json.loads(body)


def write_frame(descriptor: int, frame: _Frame) -> None:
    body = json.dumps(frame).encode()
    data = memoryview(_LENGTH.pack(len(body)) + body)
    while data:
        data = data[os.write(descriptor, data) :]


def _read(descriptor: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = os.read(descriptor, min(size - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _fork(info: Any, setup: _Frame, answers: int) -> int | None:
    """Run workers to their end: the signal that killed one; None when there is no more work, or none can be done."""
    status = _GROWN << 8
    while os.waitstatus_to_exitcode(status) == _GROWN:
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                code = _work(info, setup, answers)
            finally:  # never back into the template's loop
                os._exit(code)
        _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def _work(info: Any, setup: _Frame, answers: int) -> int:
    """Its exit code: 0 at the end of the work, `_GROWN` when it has kept so much memory that the next grammar would
    pay for it."""
    import xgrammar

    with contextlib.suppress(OSError):  # if memory runs out on the node, this process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000")
    used = _address_space()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (used + setup["memory_bytes"],) * 2)
    compiler = xgrammar.GrammarCompiler(info, max_threads=setup["threads"], cache_enabled=False)
    while (job := read_frame(0)) is not None:
        answer = _answer(compiler, setup, job["kind"], job["spec"])
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        write_frame(answers, answer)
        if _address_space() > used + setup["memory_bytes"] // 4:
            return _GROWN
    return 0


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _answer(compiler: Any, setup: _Frame, kind: str, spec: str) -> _Frame:
    """What vLLM does: its front end converts the grammar of every row, in the loop that feeds the engine; the engine
    converts and compiles it beside its own loop. The timers end the process with a signal each: SIGVTALRM for the
    first, SIGPROF (CPU of all threads) for the second, SIGALRM when it waits for ever."""
    from xgrammar import Grammar

    convert: Any = {"JSON": Grammar.from_json_schema, "STRUCTURAL_TAG": Grammar.from_structural_tag}[kind]
    signal.setitimer(signal.ITIMER_REAL, setup["wall_s"])
    try:
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, setup["convert_s"])
        convert(spec)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        converted = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, setup["cpu_s"])
        compiled = _compile(compiler, setup, kind, spec)
        took = {"convert_s": converted - begun, "cpu_s": time.process_time() - begun}
        return {"bytes": compiled.memory_size_bytes, "empty": _is_empty(compiled), **took}
    except MemoryError:
        return {"signal": int(signal.SIGABRT)}
    except Exception as error:  # whatever the compiler finds wrong with it
        return {"signal": int(signal.SIGABRT)} if "bad_alloc" in str(error) else {"error": str(error)[:1000]}


def _compile(compiler: Any, setup: _Frame, kind: str, spec: str) -> Any:
    if kind == "STRUCTURAL_TAG":
        return compiler.compile_structural_tag(spec)
    separators = (",", ":") if setup["compact"] else None
    return compiler.compile_json_schema(spec, any_whitespace=not setup["compact"], separators=separators)


def _is_empty(compiled: Any) -> bool:
    """Whether no token may come first, as with definitions that are each other."""
    import xgrammar

    allowed = xgrammar.allocate_token_bitmask(1, compiled.tokenizer_info.vocab_size)
    xgrammar.GrammarMatcher(compiled).fill_next_token_bitmask(allowed)
    return not bool(allowed.any())


if __name__ == "__main__":
    main()
