"""Packets -> TCP connections."""
