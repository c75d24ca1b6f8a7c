#!/usr/bin/env bash
# Makes .venv hold exactly requirements/cpu.txt and this package (`make setup`). Takes 2 s when there is nothing to do.
# A changed lock makes a new .venv, so that nothing of the old one stays behind; stamps in it tell what was finished.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
PIP_VERSION=26.3
VENV=.venv

say() { echo "setup: $*"; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.12 python3.13 python3.11; do
        if supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.11, 3.12 or 3.13 found; name one: make PYTHON=/path/to/python3.12 setup" >&2
    return 1
}

digest() { cat "$@" | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:12])'; }

python=$(find_python)
locked=$VENV/.lsi-lock-$(digest requirements/cpu.txt)
installed=$VENV/.lsi-$(digest requirements/cpu.txt pyproject.toml packaging/torchvision_ops/*.p*)
if [[ -e $locked && -e $installed && -x $VENV/bin/lsi ]]; then
    exit 0
fi

if [[ ! -e $locked ]]; then
    say "new $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
    "$VENV/bin/python" -m pip install -qq --upgrade "pip==$PIP_VERSION"
    say "installing $(grep -c == requirements/cpu.txt) distributions: 3.3 GB, about 2 minutes"
    "$VENV/bin/python" -m pip install -qq --no-deps -r requirements/cpu.txt
    if ! "$VENV/bin/python" -c 'import torch' 2>/dev/null; then
        say "torch does not start: your package index offered a build that is not for CPUs. Set PIP_EXTRA_INDEX_URL or" >&2
        say "PIP_FIND_LINKS to where CPU builds of torch are (README.md, \"CPU builds of torch\"), and run this again." >&2
        exit 1
    fi
    touch "$locked"
fi
say "installing lsi-ray from this folder"
"$VENV/bin/python" -m pip install -qq --no-deps --no-build-isolation -e .
"$VENV/bin/python" packaging/torchvision_ops/install.py
touch "$installed"
say "done; the command is $VENV/bin/lsi"
