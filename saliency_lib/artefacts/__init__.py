"""Specifications, the store that keeps what they describe, and the pipeline that builds it."""
