"""What a caller may ask of a batch that exists: the bodies of retry and PATCH, alike on both surfaces."""

from __future__ import annotations

from lsi_ray.service.api.fields import Incoming, Priority, Url, Window

PATCH = """Change the window, the priority, or the URLs of a batch that has not ended.

A shorter window is checked as a new batch is: `no_capacity` says which one would do. A batch whose input URL has
expired before its turn stays `validating`, and one whose output URL has stays `finalizing`; `waiting` says so, and a
fresh URL of the same object lets it go on."""

RETRY = """A new batch from one that has ended: the whole, or only the rows that failed; twice for one batch at most,
retries of retries included.

Without URLs it runs on those of before, if they are still valid: the service keeps the two URLs of a batch that has
ended, and nothing else of it, until they expire, for a day at most (as configured), and not once it was retried or
archived. If they end before the window does, the window is shortened, with a warning; `not_retryable` or
`output_url_required` asks for new ones.

A retry of the whole overwrites the first output if it has the same URL. One of the failed rows would overwrite the good
ones: it needs an `output_file_uri` of another object. Webhooks are not kept: a retry tells nobody."""


class RetryRequest(Incoming):
    """All optional: without any, the whole batch runs again with its URLs and its window, counted anew."""

    failed_only: bool = False
    completion_window: Window | None = None
    input_file_uri: Url | None = None
    output_file_uri: Url | None = None


class PatchRequest(Incoming):
    """What is left out stays. A window counts from the creation of the batch; URLs replace those that run out."""

    completion_window: Window | None = None
    priority: Priority | None = None
    input_file_uri: Url | None = None
    output_file_uri: Url | None = None
