"""Benchmarks: each engine and its peer run in one process on the same weights, after their results have been compared."""
