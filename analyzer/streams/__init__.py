"""Segments -> the bytes of each direction, in causal order."""
