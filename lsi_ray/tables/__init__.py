"""Tables and batches: rows of Parquet, Arrow, CSV, JSON lines or images become requests, and answers become Parquet."""
