"""Which paths are pages: `/` and everything under `/ui`. All want a sign-in, but the form that gives one."""

from __future__ import annotations

import re

HOME = "/"
PREFIX = "/ui"
SIGN_IN = f"{PREFIX}/sign-in"
SIGN_OUT = f"{PREFIX}/sign-out"
SUBMIT = f"{PREFIX}/submit"
UPLOAD = f"{PREFIX}/upload"
CLUSTER = f"{PREFIX}/cluster"
STATIC = f"{PREFIX}/static"

_READABLE = re.compile(rf"/|{PREFIX}/(?:submit|cluster|batches/[A-Za-z0-9_.-]{{1,128}})")


def is_page(path: str) -> bool:
    return path in (HOME, PREFIX) or path.startswith(f"{PREFIX}/")


def is_open(path: str) -> bool:
    """Whether anybody may ask for it."""
    return path == SIGN_IN or path.startswith(f"{STATIC}/")


def batch_path(batch_id: str) -> str:
    return f"{PREFIX}/batches/{batch_id}"


def after_sign_in(wanted: str) -> str:
    """One of our own pages, whatever was asked for: of a form that came too late, the page that has it."""
    path = wanted
    while path.startswith(f"{PREFIX}/batches/") and path.count("/") > 3:
        path = path.rpartition("/")[0]
    return path if _READABLE.fullmatch(path) else HOME
