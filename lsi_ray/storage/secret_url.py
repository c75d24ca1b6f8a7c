"""A URL that does not tell its secret: whoever holds a pre-signed URL may read or overwrite the object it names.

`SecretUrl` is deliberately not a `str`: a str subclass gives its whole content to json, `+`, `join` and C code. Only
`reveal()` gives the real text; everything else shows `https://host/path?<redacted>`. Pickling keeps the secret, because
Ray moves URLs between processes.
"""

from __future__ import annotations

import re
from calendar import timegm
from math import isnan
from time import strptime
from urllib.parse import parse_qsl, unquote, urlsplit

REDACTED = "<redacted>"
_LAST_SECOND = 253_402_300_799.0


class SecretUrl:
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    @property
    def scheme(self) -> str:
        return self._text.partition(":")[0].lower()

    @property
    def name(self) -> str:
        """The last part of the path, decoded: "in.tar.gz"."""
        path = re.split(r"[?#]", self._text, maxsplit=1)[0].partition("://")[2]
        return unquote(path.partition("/")[2].rstrip("/").rpartition("/")[2])

    @property
    def expires_at(self) -> float | None:
        """When the signature ends, in seconds since the epoch; None when the URL does not say, or not legibly. Never
        before the epoch nor after the year 9999, which no calendar could show."""
        try:
            query = {key.lower(): value for key, value in parse_qsl(urlsplit(self._text).query)}
            ends = _expiry(query)
        except ValueError:
            return None
        return None if ends is None or isnan(ends) else min(max(ends, 0.0), _LAST_SECOND)

    def __str__(self) -> str:
        return redact_url(self._text)

    def __repr__(self) -> str:
        return f"SecretUrl({redact_url(self._text)!r})"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, SecretUrl) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[SecretUrl], tuple[str]]:
        return SecretUrl, (self._text,)


def redact_url(text: str) -> str:
    """Without query, fragment and user; works on text that is no valid URL, too."""
    visible, mark, _ = _split_first(text, "?#")
    scheme, slashes, rest = visible.partition("://")
    authority, slash, path = _split_first(rest, "/\\")
    if "@" in authority:
        authority = f"{REDACTED}@{authority.rpartition('@')[2]}"
    return _printable(f"{scheme}{slashes}{authority}{slash}{path}{f'?{REDACTED}' if mark else ''}")


def _printable(text: str) -> str:
    """No line breaks to forge a log with, and no surrogates, which no answer can hold."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _split_first(text: str, marks: str) -> tuple[str, str, str]:
    found = re.search(f"[{re.escape(marks)}]", text)
    return (text, "", "") if found is None else (text[: found.start()], found[0], text[found.end() :])


def _expiry(query: dict[str, str]) -> float | None:
    for vendor in ("x-amz", "x-goog"):
        if f"{vendor}-date" in query and f"{vendor}-expires" in query:
            begun = timegm(strptime(query[f"{vendor}-date"], "%Y%m%dT%H%M%SZ"))
            return begun + float(query[f"{vendor}-expires"])
    if "se" in query and "sig" in query:
        return float(timegm(strptime(query["se"], _azure_form(query["se"]))))
    if "expires" in query and "signature" in query:
        return float(query["expires"])
    return None


def _azure_form(text: str) -> str:
    """Azure takes a date, a minute, a second or a fraction of one; the fraction is always zeros."""
    forms = {10: "%Y-%m-%d", 17: "%Y-%m-%dT%H:%MZ", 20: "%Y-%m-%dT%H:%M:%SZ", 28: "%Y-%m-%dT%H:%M:%S.0000000Z"}
    return forms.get(len(text), forms[20])
