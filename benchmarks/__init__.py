"""Benchmarks: ratios of pairs that are measured side by side in one run."""
