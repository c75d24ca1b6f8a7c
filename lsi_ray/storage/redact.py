"""Takes signatures and tokens out of text that others wrote: messages of libraries, bodies of servers, log lines.

Our own code never formats a secret (`SecretUrl`); this is for what httpx, botocore and servers say by themselves.
"""

from __future__ import annotations

import logging
import re

from lsi_ray.storage.secret_url import REDACTED, redact_url

_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>]+")
_QUERY_SECRET = re.compile(
    r"(?i)\b((?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|GoogleAccessId|Signature|sig|se)=)"
    r"[^&\s\"'<>]+"
)
_HEADER_SECRET = re.compile(r"(?i)\b((?:Authorization|X-Amz-Security-Token)['\"]?\s*[:=]\s*)[^\r\n]+")
_BEARER = re.compile(r"(?i)\b(Bearer\s+)[\w.~+/=-]+")


def redact(text: str) -> str:
    text = _URL.sub(lambda found: redact_url(found[0]), text)
    for pattern in (_QUERY_SECRET, _HEADER_SECRET, _BEARER):
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return text


class RedactingFilter(logging.Filter):
    """For a logger or a handler: the formatted message of every record passes through `redact`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return True


# httpx logs every request's whole URL at INFO; the others log headers at DEBUG, with signatures and redirects to signed
# URLs in them. A filter does not reach a logger's children, so each is named.
for _name in (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "botocore.auth",
    "botocore.endpoint",
    "botocore.parsers",
):
    logging.getLogger(_name).addFilter(RedactingFilter())
