"""Every distinct grammar is compiled aside, once per render worker, before a row that asks for it goes to the engine.

A grammar compiler has no limits of its own, and the engine's runs inside the engine. With a vocabulary of 150,000
tokens (xgrammar 0.2.8, one core) a flat schema takes 3 to 60 ms, a string with `maxLength: 500` 7 s, some patterns of
50 characters over 40 s and a GB; earlier versions crashed on others. What does not compile within the limits below, in
a child that may die of it (`grammar_child`), is the row's error `schema_rejected`. Measured with the tiny model: 2 s
for the first schema, 1.6 ms for a new flat one, 0.1 ms for one seen before. What all schemas of a caller may take is
bounded too (`schema_budget`). Only for xgrammar, which is the backend unless the config names another: then the bounds
of `archive/schemas` are all there is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsi_ray.engine.vllm import grammar_child
from lsi_ray.engine.vllm.imports import (
    XgrammarBackend,
    get_structured_output_key,
    has_xgrammar_unsupported_json_features,
)
from lsi_ray.engine.vllm.schema_budget import ROW_EARNS_S, SchemaBudget
from lsi_ray.errors import EngineError, RowError

MEMORY_BYTES = 1 << 30
# vLLM's front end converts the grammar of every row, seen before or not, in the loop that feeds the GPU.
CONVERT_S = 0.2
# What the engine keeps per grammar: 0.4 MB for a person's record, 23 MB for 1,000 required properties.
GRAMMAR_BYTES = 128 << 20
WALL_S = 120
START_S = 180
BUDGET = 10  # slowest schemas that a caller's budget starts with
_KNOWN = 4096
_THREADS = 8  # as vLLM's
_UNSUPPORTED = (
    "has features that xgrammar does not support: multipleOf; uniqueItems or contains; a pattern or format together "
    "with a length; an unknown format; several patternProperties, or some beside properties; allOf of several schemas"
)
_PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """`reason`: why it is rejected, None when it is not. Seconds of CPU: `convert_s` for each row, `cpu_s` once."""

    reason: str | None
    convert_s: float = 0.0
    cpu_s: float = 0.0


class Grammars:
    """`config`: vLLM's, of the model. `cpu_s`: what compiling one grammar may take, over all cores."""

    def __init__(self, config: Any, tokenizer: Any, cpu_s: int) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._cpu_s = cpu_s
        self._backend = config.structured_outputs_config.backend
        self._known: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._budget = SchemaBudget(BUDGET * cpu_s)
        self._child: _Child | None = None
        self.compiled = 0

    def check(self, params: Any, param: str, caller: str = "") -> None:
        """Raises RowError `schema_rejected` for a grammar that the engine had better not see, or whose caller has used
        up what schemas may take. `params`: vLLM's SamplingParams; `param`: the field of the request that asks for the
        grammar."""
        wanted = getattr(params, "structured_outputs", None)
        if wanted is None or wanted.all_constraints_none() or self._backend not in ("auto", "xgrammar"):
            return
        kind, spec = get_structured_output_key(wanted)
        if kind.name not in ("JSON", "STRUCTURAL_TAG"):  # no request can ask for the others: see archive/fields
            return
        if (reason := self._reason(kind.name, spec, caller)) is not None:
            raise RowError("schema_rejected", f"the JSON schema in {param} {reason}", param=param)

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _reason(self, kind: str, spec: str, caller: str) -> str | None:
        key = hashlib.blake2b(f"{kind} {spec}".encode(), digest_size=16).digest()
        solvent, verdict = self._budget.row(caller), self._known.get(key)
        if not solvent and (verdict is None or verdict.convert_s > ROW_EARNS_S):
            return (
                f"is one too many: schemas of this caller's have just taken {self._budget.most_s:g} s of CPU. Fewer "
                "distinct ones, or ones without long bounds, would run"
            )
        if verdict is None:
            verdict = self._known[key] = self._judge(kind, spec)
            self._budget.spend(caller, verdict.cpu_s)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
            self._budget.spend(caller, verdict.convert_s)
        return verdict.reason

    def _judge(self, kind: str, spec: str) -> _Verdict:
        self.compiled += 1
        if kind == "JSON" and self._backend == "xgrammar" and has_xgrammar_unsupported_json_features(json.loads(spec)):
            return _Verdict(_UNSUPPORTED)
        begun = time.monotonic()
        answer = self._ask(kind, spec)
        if answer.get("signal") == signal.SIGKILL:  # not one of our limits: perhaps the node was out of memory
            self.close()
            answer = self._ask(kind, spec)
        # A compiler that died cannot say what it took.
        cpu_s = answer.get("cpu_s", min(time.monotonic() - begun, self._cpu_s))
        reason = _said(answer, self._cpu_s)
        return _Verdict(reason, answer.get("convert_s", 0.0) if reason is None else 0.0, cpu_s)

    def _ask(self, kind: str, spec: str) -> dict[str, Any]:
        if self._child is None:
            self._child = _Child(self._setup())
        try:
            return self._child.ask({"kind": kind, "spec": spec})
        except BaseException:  # whatever it was: the child may be in the middle of an answer
            self.close()
            raise

    def _setup(self) -> dict[str, Any]:
        """The compiler's settings as vLLM's engine makes them of the same tokenizer and config."""
        vocab_size = self._config.model_config.get_vocab_size()
        backend = XgrammarBackend(self._config, tokenizer=self._tokenizer, vocab_size=vocab_size)
        info = backend.compiler.compile_json_schema('{"type": "boolean"}').tokenizer_info
        return {
            "tokenizer_info": info.serialize_json(),
            "compact": bool(backend.disable_any_whitespace),
            "threads": min(_THREADS, os.cpu_count() or 1),
            "cpu_s": self._cpu_s,
            "wall_s": WALL_S,
            "convert_s": CONVERT_S,
            "memory_bytes": MEMORY_BYTES,
        }


def _said(answer: dict[str, Any], cpu_s: int) -> str | None:
    """Why the grammar is rejected, None when it is not."""
    died = answer.get("signal")
    if died == signal.SIGVTALRM:
        return f"takes more than {CONVERT_S} s to convert, which every row that has it would take"
    if died == signal.SIGPROF:
        return f"takes more than {cpu_s} s of CPU to compile; long bounds and repetitions make it slow"
    if died == signal.SIGALRM:
        return f"takes more than {WALL_S} s to compile"
    if died == signal.SIGABRT:
        return f"takes more than {MEMORY_BYTES >> 20} MiB to compile"
    if died is not None:
        return f"ends the grammar compiler (signal {died})"
    if "error" in answer:
        return "is refused by the grammar compiler: " + _PLACE.sub("", answer["error"]).strip()
    if answer["empty"]:
        return "allows no value at all"
    if answer["bytes"] > GRAMMAR_BYTES:
        return f"makes a grammar of {answer['bytes'] >> 20} MiB; at most {GRAMMAR_BYTES >> 20} are accepted"
    return None


class _Child:
    """One running `grammar_child`. It ends when this process does: its stdin ends then."""

    def __init__(self, setup: dict[str, Any]) -> None:
        # By its path and without that path in `sys.path`: nothing but the compiler is imported.
        command = [sys.executable, "-P", str(Path(grammar_child.__file__))]
        # A process with threads is no template to fork from; and each malloc arena takes 64 MiB of the worker's limit.
        single = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, **dict.fromkeys(single, "1")},
        )
        try:
            self._send(setup)
            self._receive(START_S)
        except BaseException:  # nobody else knows of the process yet
            self.kill()
            raise

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        self._send(job)
        return self._receive(WALL_S + START_S)

    def kill(self) -> None:
        """The template and its worker."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, frame: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        grammar_child.write_frame(self._process.stdin.fileno(), frame)

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        if not select.select([descriptor], [], [], timeout_s)[0]:
            raise EngineError(f"the grammar compiler did not answer in {timeout_s} s")
        frame = grammar_child.read_frame(descriptor)
        if frame is None:
            raise EngineError(f"the grammar compiler has ended ({self._process.poll()})")
        return frame
