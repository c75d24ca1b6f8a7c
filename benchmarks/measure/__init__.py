"""Measured from outside, alike for every contender: engine calls, CPU and memory by process, the GPU, the host."""
