"""The archive format: strict tar index, rows of jobs.jsonl, output archive. Pure: no ray, torch or vllm."""
