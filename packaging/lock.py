"""Write requirements/cpu.txt: one exact version of every distribution that `.[cpu,dev]` needs (`make lock`).

pip resolves, nothing is installed. Versions stay as they are in the present lock unless `--upgrade` is given. pip
resolves for the Python and machine it runs on, so the markers of every requirement are then evaluated again for each
supported Python and machine: a distribution that only some of them need gets a marker, and one that pip did not see is
resolved by a second call.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "cpu.txt"
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
TARGETS = frozenset(itertools.product(PYTHONS, MACHINES))

# Named by a requirement and left out on purpose.
LEFT_OUT = {
    "torchaudio": "a plain index offers a CUDA build, which cannot load beside a CPU torch; vLLM runs without",
    "torchcodec": "as torchaudio",
    "triton": "1.0 GB that only xgrammar names, for its GPU kernels; vLLM switches it off beside a CPU torch",
}

HEADER = """\
# The CPU environment of lsi-ray: every distribution that `.[cpu,dev]` needs, for Linux and Python 3.11 to 3.13.
# Made by `make lock` (packaging/lock.py); do not edit. Installed by `make setup`:
#     pip install --no-deps -r requirements/cpu.txt
# `--no-deps` because these are named by a requirement and left out on purpose:
"""
FOOTER = """\
# torch must be a CPU build: where your index offers another one, set PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS (README.md).
"""


def roots() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in [*project["dependencies"], *extras["cpu"], *extras["dev"]]]


def resolve(requirements: list[str], constraints: list[str]) -> dict[str, dict[str, Any]]:
    """The metadata of each distribution pip would install, by canonical name."""
    with tempfile.TemporaryDirectory() as folder:
        pins, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        pins.write_text("\n".join(constraints))
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        subprocess.run([*command, "--report", str(report), "-c", str(pins), *requirements], check=True)
        installs = json.loads(report.read_text())["install"]
    return {canonicalize_name(one["metadata"]["name"]): one["metadata"] for one in installs}


def closure(found: dict[str, dict[str, Any]], target: tuple[str, str]) -> tuple[set[str], list[Requirement]]:
    """Names that `target` needs, and requirements that name something outside `found`."""
    environment = dict[str, Any](default_environment())
    environment.update(python_version=target[0], python_full_version=target[0] + ".9", platform_machine=target[1])
    todo, unknown = roots(), list[Requirement]()
    visited, names = set[tuple[str, str]](), set[str]()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT:
            continue
        if name not in found:
            unknown.append(requirement)
            continue
        names.add(name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in visited:
                continue
            visited.add((name, extra))
            wanted = [Requirement(line) for line in found[name].get("requires_dist", [])]
            todo += [r for r in wanted if r.marker is None or r.marker.evaluate({**environment, "extra": extra})]
    return names, unknown


def marker(needed_by: frozenset[tuple[str, str]]) -> str:
    if needed_by == TARGETS:
        return ""
    pythons, machines = sorted({p for p, _ in needed_by}), sorted({m for _, m in needed_by})
    if len(needed_by) != len(pythons) * len(machines):
        raise SystemExit(f"no simple marker for {sorted(needed_by)}: write it by hand")
    clauses = [f'platform_machine == "{m}"' for m in machines if len(machines) < len(MACHINES)]
    if len(pythons) < len(PYTHONS):
        clauses.append("(" + " or ".join(f'python_version == "{p}"' for p in pythons) + ")")
    return " ; " + " and ".join(clauses)


def public(version: str) -> str:
    """Without the local part: "2.13.0+cpu" is asked for as "2.13.0", to which an index may give its own CPU build."""
    return version.partition("+")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions instead of the present ones")
    upgrade = parser.parse_args().upgrade
    lines = LOCK.read_text().splitlines() if LOCK.exists() and not upgrade else []
    pins = [line for line in lines if line and not line.startswith("#")]
    found = resolve([f"{ROOT}[cpu,dev]"], pins)
    unknown = {str(r).partition(";")[0].strip() for target in TARGETS for r in closure(found, target)[1]}
    if unknown:
        found = resolve(sorted(unknown), [f"{n}=={m['version']}" for n, m in found.items()]) | found
    by_target = {target: closure(found, target)[0] for target in TARGETS}
    body = []
    for name in sorted(found):
        needed_by = frozenset(target for target, names in by_target.items() if name in names)
        if needed_by and name != "lsi-ray":
            body.append(f"{name}=={public(found[name]['version'])}{marker(needed_by)}\n")
    reasons = [f"#     {name}: {why}\n" for name, why in LEFT_OUT.items()]
    LOCK.write_text(HEADER + "".join(reasons) + FOOTER + "".join(body))
    print(f"{LOCK.relative_to(ROOT)}: {len(body)} distributions")


if __name__ == "__main__":
    main()
