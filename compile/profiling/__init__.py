"""Measurements on the target: latency, throughput, and the file they are kept in."""
