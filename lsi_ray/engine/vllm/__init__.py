"""The only place that imports vLLM: rendering, generation and finishing as three parts that share no process."""
