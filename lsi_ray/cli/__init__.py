"""The `lsi` command. Each command imports what it needs when it runs: `--help` loads neither ray, torch nor vllm."""
