"""The durable record of batches, shards, leases and results: a state machine over SQLite, and files of results."""
