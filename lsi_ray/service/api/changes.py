"""What a caller may ask of a batch that exists: the bodies of retry and PATCH, alike on both surfaces."""

from __future__ import annotations

from lsi_ray.service.api.fields import Incoming, Priority, Url, Window


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
