"""LSI's Batch, its statuses and its error types, from the second version of its public schema (2026-02 to 2026-04).

`?` marks a field that may be left out.
"""

from __future__ import annotations

_BATCH = """
id                  string
account_id          string
object              string
endpoint            string
errors              errors?
input_file_uri      string
output_file_uri     string
completion_window   string
status              string
created_at          time
in_progress_at      time?
expires_at          time?
finalizing_at       time?
completed_at        time?
failed_at           time?
cancelling_at       time?
expired_at          time?
cancelled_at        time?
request_counts      counts
metadata            map
deadline_at         time
model_id            string
retry_count         integer
is_retry            boolean
"""
_STATUSES = """
accepted compute_purchased not_started started waiting validating in_progress finalizing completed failed expired
cancelling cancelled retrying
"""
_ERROR_TYPES = """
api_error invalid_request_error authentication_error idempotency_error conflict not_found request_timed_out forbidden
not_implemented upgrade_required payment_required service_unavailable unprocessable_entity
"""

FIELDS: dict[str, str] = {name: kind for name, kind in (line.split() for line in _BATCH.strip().splitlines())}
STATUSES = _STATUSES.split()
ERROR_TYPES = _ERROR_TYPES.split()
