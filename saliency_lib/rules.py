"""Backward rules: how a gradient passes the non-linear units of a network."""
