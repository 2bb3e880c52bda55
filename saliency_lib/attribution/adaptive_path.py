"""Guided integrated gradients of PAIR: a path that adapts to the gradients it meets."""
