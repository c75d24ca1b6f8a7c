"""The service around ledger and stream: the Ray actors, the Ray Serve ingress, and the HTTP API."""
