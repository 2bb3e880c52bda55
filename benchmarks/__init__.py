"""Benchmarks: every engine beside its peer in one process, on the same weights, after their results were compared."""
